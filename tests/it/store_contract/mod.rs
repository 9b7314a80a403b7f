//! What every store promises, as one suite: [`contract`] runs all of it on one.

mod configuration;
pub mod history;
mod queues;
mod steps;
pub mod subject;

/// Hands every test of the suite to another macro, after what is given to it.
macro_rules! suite {
    ($then:ident: $($given:tt)*) => {
        $then! { $($given)*;
        steps::an_unknown_step_has_no_record,
        steps::a_new_step_is_found_again,
        steps::the_second_of_two_commits_is_told_to_plan_again,
        steps::a_newer_configuration_is_told_to_plan_again,
        steps::a_purged_step_is_gone_with_its_evidence,
        steps::purging_what_is_unknown_changes_nothing,
        steps::evidence_is_bounded_and_replaced_by_attempt,
        steps::live_steps_never_pass_their_quota,
        steps::one_of_many_that_commit_at_once_wins,
        steps::due_steps_come_in_order_however_often_they_moved,
        steps::due_steps_of_all_namespaces_come_in_one_order,
        steps::a_waiting_step_moves_with_a_longer_patience,
        steps::changes_are_dense_and_older_ones_are_a_gap,
        steps::a_policy_given_inline_must_be_remembered,
        steps::time_does_not_go_back_in_the_change_log,
        steps::a_pause_expires_no_lease,
        steps::a_second_pause_in_the_grace_expires_none_either,
        steps::what_is_loaded_can_be_confirmed,
        configuration::a_namespace_is_created_changed_and_deleted,
        configuration::a_namespace_with_steps_is_not_deleted,
        configuration::an_old_revision_is_refused,
        configuration::a_policy_keeps_its_latest_revisions,
        configuration::a_deleted_policy_stays_readable,
        configuration::an_inline_policy_is_found_by_its_digest,
        configuration::policies_have_a_quota_and_unused_ones_make_room,
        configuration::inline_policies_have_a_quota_and_unused_ones_make_room,
        configuration::a_target_is_created_replaced_paused_and_deleted,
        configuration::a_change_of_a_target_is_told_to_plan_again,
        configuration::targets_have_a_quota,
        configuration::namespaces_are_listed_in_pages,
        configuration::what_happens_in_one_namespace_does_not_show_in_another,
        queues::a_step_is_in_its_queue_while_it_waits,
        queues::a_step_is_in_its_queue_with_its_labels,
        history::every_history_is_kept_as_planned,
        }
    };
}

/// Runs every test of the suite on the store that `$make` makes: a function
/// from a [`Clock`](reprise::clock::Clock) to a [`subject::Subject`].
macro_rules! contract {
    ($store:ident, $make:expr) => {
        suite!(each_by_itself: $store, $make);
    };
}

macro_rules! each_by_itself {
    ($store:ident, $make:expr; $($module:ident :: $test:ident,)*) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$module::$test($make(super::subject::clock()).await).await;
                }
            )*

            /// About how much there is, not about the server: once is enough.
            #[tokio::test]
            async fn thousands_of_moved_events_hide_nothing() {
                let subject = $make(super::subject::clock()).await;
                super::steps::thousands_of_moved_events_hide_nothing(subject).await;
            }
        }
    };
}

/// Runs the whole suite as one test on [`subject::Servers`] that are expensive
/// to start: they are cleared between its parts.
macro_rules! contract_in_one {
    ($name:ident, $servers:expr) => {
        suite!(one_after_another: $name, $servers);
    };
}

macro_rules! one_after_another {
    ($name:ident, $servers:expr; $($module:ident :: $test:ident,)*) => {
        #[tokio::test]
        async fn $name() {
            let servers: super::subject::Servers = $servers.await;
            $(
                println!("{}", stringify!($test));
                let subject = servers.subject(super::subject::clock()).await;
                Box::pin(super::$module::$test(subject)).await;
            )*
        }
    };
}

contract!(memory, super::subject::memory);
contract!(embedded, super::subject::embedded);
contract!(redis, super::subject::redis);

/// The same on every server that is supported, and however servers stand together.
mod redis_elsewhere {
    use super::subject::Servers;
    use crate::redis_servers::Kind;

    contract_in_one!(redis_8_2, Servers::alone(Kind::Redis82));
    contract_in_one!(valkey_8_1, Servers::alone(Kind::Valkey81));
    contract_in_one!(valkey_9_1, Servers::alone(Kind::Valkey91));
    contract_in_one!(sentinel, Servers::sentinel(Kind::Redis70));
    contract_in_one!(cluster, Servers::cluster(Kind::Valkey91));
}
