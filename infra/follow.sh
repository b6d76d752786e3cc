# Sourced by the launchers: follow the logs of a job, and show their last lines before the launcher ends.

# follow ARGUMENTS_OF_TAIL...
follow() {
    # in a session of its own: SIGTERM for all of the stage's processes is the launcher's to answer
    setsid tail --follow=name --pid=$$ "$@" &
    follower=$!
    trap 'sleep 2; kill "$follower" || true' EXIT # it shows the last lines first
    local session=
    until [ "$session" = "$follower" ]; do # until then, SIGTERM would end it too
        read -r _ _ _ _ _ session _ <"/proc/$follower/stat"
    done
}
