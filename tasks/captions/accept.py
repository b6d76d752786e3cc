"""What was said of a clip, cleaned, and whether it may be trained on."""

from tasks.captions import cleaning, outcomes
from tasks.captions.captioner import Said
from tasks.captions.settings import CaptionSettings


def judge(said: Said, settings: CaptionSettings) -> Said:
    """Return what was said with its texts cleaned, or with the reason why they may not be trained on."""
    if said.reason is not None or said.text is None:
        return said._replace(text=None, short=None, reason=said.reason or "empty")
    if outcomes.is_refusal(cleaning.clean(said.text, ()).text):
        return Said(None, reason="refused", rules=said.rules)
    text, applied = cleaning.clean(said.text, settings.clean)
    rules = (*said.rules, *(rule for rule in applied if rule not in said.rules))
    reason = outcomes.reason_against(text, settings.checks)
    if reason is not None:
        return Said(None, reason=reason, rules=rules)
    short = cleaning.clean(said.short, settings.clean).text if said.short else ""
    return Said(text, short or cleaning.sentences(text)[0], rules=rules)
