# Reprise in a Bash step of Octopus Deploy: `source reprise.sh`, then
#
#   coordinated COMMAND [ARGUMENT…]
#
# runs the command as a step, and again for as long as the service says so. The run is the
# deployment, the step the action, on the machine that it is for. Variables of the project:
#
#   Reprise.Address   where the service is; else REPRISE_ADDR, else a socket or port of the machine
#   Reprise.Policy    a policy by name; else the action's, as `policy import --from octopus` names it
#   Reprise.Targets   what the action calls or needs, separated by spaces
#   Reprise.Run       the run, where deployments are to share one; else the deployment's id

# An Octopus variable. Nothing for one that there is none of: Octopus answers with a sentence then.
octopus_variable() {
  local value
  value=$(get_octopusvariable "$1")
  [[ $value == "Unrecognized variable "* ]] || printf '%s' "$value"
}

# A name as an id: what ids do not take becomes a dash, as `policy import` does it.
as_id() {
  printf '%s' "${1//[^A-Za-z0-9._~:\/@+-]/-}"
}

# The first of its arguments that says something.
first_of() {
  local each
  for each in "$@"; do
    [[ -z $each ]] || { printf '%s' "$each"; return; }
  done
}

coordinated() {
  local run action machine address target
  local -a options
  run=$(first_of "$(octopus_variable Reprise.Run)" "$(octopus_variable Octopus.Deployment.Id)" \
    "$(octopus_variable Octopus.RunbookRun.Id)")
  action=$(as_id "$(octopus_variable Octopus.Action.Name)")
  machine=$(as_id "$(octopus_variable Octopus.Machine.Name)")
  options=(--run "$(as_id "$run")" --step "$action${machine:+/$machine}")
  options+=(--policy "$(first_of "$(octopus_variable Reprise.Policy)" "$action")")
  for target in $(octopus_variable Reprise.Targets); do
    options+=(--target "$target")
  done
  address=$(octopus_variable Reprise.Address)
  [[ -z $address ]] || options+=(--addr "$address")
  reprise exec "${options[@]}" -- "$@"
}
