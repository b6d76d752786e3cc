"""Settings of stage dsg, as tests have them."""

from tasks.dsg.settings import DsgSettings

SETTINGS = DsgSettings(
    judge="shapes",
    captions=100,
    seed=0,
    decoy_fraction=1,
    decoys=4,
    max_false_yes=0.15,
    until="all",
    max_invented=0.1,
    min_objects=0.5,
    max_undecided=0.05,
    without_verdict="go_on",
    repair="none",
    rewrite_prompt="prompts/rewrite.txt",
    shard_captions=4,
)
