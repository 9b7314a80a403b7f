// A worker and an operator in Node:
//   node reprise.test.js --tcp HOST:PORT --unix PATH

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { after, describe, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { parseArgs } from "node:util";
import { connect, explained, status, unpacked } from "./client.js";

const { values } = parseArgs({ options: { tcp: { type: "string" }, unix: { type: "string" } } });
assert(values.tcp && values.unix, "--tcp HOST:PORT and --unix PATH are required");

// Long enough that the call right after a failure comes too early on a busy machine too.
const backoff = { seconds: "1", nanos: 500_000_000 };

const policy = (max_retries = 3) => ({ max_retries, backoff: { fixed: { delay: backoff } } });
const transient = { class: "FAILURE_CLASS_TRANSIENT", error_type: "TimeoutError", grpc_code: 14 };
const newStep = () => ({ run: `run-${randomUUID()}`, step: "load" });
const beginning = (step, more) => ({ ...step, request_id: randomBytes(16), ...more });
const milliseconds = ({ seconds, nanos }) => Number(seconds) * 1000 + nanos / 1e6;

/** What makes two decisions one. */
const identity = ({ verdict, reason, not_before, rule, policy, counters }) => ({
  verdict, reason, not_before, rule, policy, counters,
});

/** The call is refused with this code and exactly one ErrorInfo; returns the field violations. */
async function refused(code, call) {
  const error = await call.then(() => assert.fail("the call was carried out"), (error) => error);
  assert.equal(error.code, code, error.message);
  const { infos, violations } = explained(error);
  assert.equal(infos.length, 1);
  assert(infos[0].reason && infos[0].domain);
  return violations;
}

for (const [transport, address] of [["TCP", values.tcp], ["the Unix socket", `unix:${values.unix}`]]) {
  describe(`over ${transport}`, () => {
    const { workers, admin, close } = connect(address);
    after(close);

    test("a step fails, waits and succeeds", async () => {
      const step = newStep();
      const { grant } = await workers.BeginAttempt(beginning(step, { inline_policy: policy() }));
      assert.equal(grant.attempt, 1);

      const beat = await workers.Heartbeat({ ...step, fence: grant.fence });
      assert.equal(beat.state, "LEASE_STATE_HELD");

      const report = { ...step, fence: grant.fence, failure: transient };
      const failed = await workers.ReportAttempt(report);
      assert.equal(failed.status, "REPORT_STATUS_RECORDED");
      assert.equal(failed.decision.verdict, "VERDICT_RETRY");
      assert.deepEqual(failed.decision.delay, backoff);

      const again = await workers.ReportAttempt(report);
      assert(again.replayed);
      assert.deepEqual(identity(again.decision), identity(failed.decision));

      const { refusal } = await workers.BeginAttempt(beginning(step));
      assert.equal(refusal.verdict, "VERDICT_WAIT");
      assert.equal(refusal.reason, "REASON_NOT_DUE");
      assert(milliseconds(refusal.delay) > 0);

      await wait(Math.ceil(milliseconds(refusal.delay)));
      const second = await workers.BeginAttempt(beginning(step));
      assert.equal(second.grant?.attempt, 2);
      assert(BigInt(second.grant.fence) > BigInt(grant.fence));

      const done = await workers.ReportAttempt({ ...step, fence: second.grant.fence, success: {} });
      assert.equal(done.decision.verdict, "VERDICT_DONE");

      const shown = await workers.GetStep(step);
      assert.equal(shown.step.state, "STEP_STATE_SUCCEEDED");
      assert.deepEqual(shown.step.attempts.map(({ outcome }) => outcome), ["OUTCOME_FAILURE", "OUTCOME_SUCCESS"]);
    });

    test("bad input is refused by field", async () => {
      const step = newStep();
      const bad = [
        ["run", { run: "not an id" }],
        ["request_id", { request_id: Buffer.from("short") }],
      ];
      for (const [field, fault] of bad) {
        const violations = await refused(status.INVALID_ARGUMENT, workers.BeginAttempt(beginning(step, fault)));
        assert.deepEqual(violations.map((violation) => violation.field), [field]);
      }
    });

    test("one bad item harms no other of its batch", async () => {
      const { run } = newStep();
      const item = (step, more) => ({ run, step, inline_policy: policy(), ...more });
      const { results } = await workers.BatchReportAttempts({
        reports: [
          item("one", { attempt: 1, success: {} }),
          item("two", { failure: transient }),
          item("three", { attempt: 1, failure: transient }),
        ],
      });
      assert.deepEqual(results.map(({ result }) => result), ["response", "error", "response"]);
      assert.equal(results[0].response.decision.verdict, "VERDICT_DONE");
      assert.equal(results[2].response.decision.verdict, "VERDICT_RETRY");
      assert.equal(results[1].error.code, status.INVALID_ARGUMENT);
    });

    test("a begin given up and repeated counts once", async () => {
      const step = newStep();
      const request = beginning(step);
      await assert.rejects(workers.BeginAttempt(request, { patience: -1 }), { code: status.DEADLINE_EXCEEDED });
      await assert.rejects(workers.BeginAttempt(request, {}, (call) => call.cancel()), { code: status.CANCELLED });
      const { grant } = await workers.BeginAttempt(request);
      assert.equal(grant.attempt, 1);
    });

    test("a policy changes only under its current etag", async () => {
      const name = `policy-${randomUUID()}`;
      const created = await admin.CreatePolicy({ policy: { name, policy: policy(2) } });
      const { etag } = created.policy;
      await admin.UpdatePolicy({ policy: { name, etag, policy: policy(5) } });
      await refused(status.ABORTED, admin.UpdatePolicy({ policy: { name, etag, policy: policy(7) } }));
    });

    test("evaluate decides each failure until the step ends", async () => {
      const { decisions } = await admin.Evaluate({ inline_policy: policy(2), failures: Array(5).fill(transient) });
      const verdicts = decisions.map(({ decision }) => decision.verdict);
      assert.deepEqual(verdicts, ["VERDICT_RETRY", "VERDICT_RETRY", "VERDICT_STOP"]);
    });
  });
}
