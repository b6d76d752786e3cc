"""Why a row is not ok: every code that a table's column `reason` can have, what it means, and what to do about it.

The codes themselves are given where the verdict is; a test finds them there and asks for their sentence here.
"""

from typing import NamedTuple


class Reason(NamedTuple):
    """One code of the column `reason`."""

    meaning: str
    remedy: str
    """What whoever wants the row to be ok can do; where nothing can be done, what that is worth knowing for."""


RAW_VIDEO = "A raw video is not used, or not as asked"
SANDBOX = "The process that opened the video was ended"
SHOT = "A shot is no clip"
CLIP = "A clip has no caption, no latent or no verdict"
VIEWS = "An object of multi-view is not used"
INGEST = "A sample of `stiv ingest` is not taken in"

_SAME_FILE = "Look whether the file is whole; if it plays elsewhere, encode it again (ffmpeg -i OLD -c:v libx264 NEW)."
_NOT_MEANT = "Nothing, unless the file is one that you trust and want: then raise {} in params.yaml."

REASONS: dict[str, dict[str, Reason]] = {
    RAW_VIDEO: {
        "not_found": Reason(
            "The file that was listed is not there, or no longer.",
            "Put it back, or take it out of the list. It is looked for again in the next run.",
        ),
        "not_permitted": Reason(
            "The file, the object, or a folder above it, may not be read, or its name is too long.",
            "Give the user who runs the pipeline the right to read it (chmod, chown, or the bucket's policy).",
        ),
        "not_a_file": Reason("A folder, a pipe, a device or a link where a file is wanted.", "Name the file itself."),
        "outside_source": Reason(
            "A link that leads out of the folder of raw videos, and not into DVC's cache.",
            "Move or copy the file into the folder.",
        ),
        "archived": Reason(
            "The object lies in an archive of its store, which gives no bytes before they are restored.",
            "Restore it (aws s3api restore-object). It is tried again in the next run.",
        ),
        "object_broken": Reason(
            "The store does not give the object's bytes: they never came whole, came too slowly, or are not those "
            "that were stored.",
            "Store it again. It is tried again in the next run.",
        ),
        "web_address": Reason(
            "The list names an address of the web, which is not fetched.",
            "Fetch the file, or put it into a bucket and name it as s3://bucket/key.",
        ),
        "text_without_video": Reason(
            "A text that stands beside no video: a sidecar has its video's name, with .txt for the ending.",
            "Give both one name, in the same spelling; ignore this of a README.",
        ),
        "name_not_text": Reason("The file's name is not UTF-8, so no table can hold it.", "Rename the file."),
        "not_a_video_extension": Reason(
            "The name ends otherwise than `videos.extensions` allows; the file was not opened.",
            "Add the ending to `videos.extensions` if it is one of videos.",
        ),
        "empty_file": Reason("The file has no bytes.", "Fetch it again."),
        "too_many_bytes": Reason(
            "The file is larger than `sandbox.max_size_bytes`.", _NOT_MEANT.format("`sandbox.max_size_bytes`")
        ),
        "duplicate": Reason(
            "Of a file: another has the same bytes and says more, or comes first by name; that one is used. Of a "
            "caption: a model said the same of more clips than `captions.checks.max_same`.",
            "Of a file, nothing: what it says of caption, licence or source is not used; put it beside the other. Of a "
            "caption, look at the text: it is an endpoint's fault as a rule, or a prompt that the model does not obey.",
        ),
        "forgotten": Reason(
            "Its hash is in `videos.forgotten`: it was taken down.",
            "Nothing; `stiv forget` put it there. Take it out of the list only if the takedown was a mistake.",
        ),
        "caption_too_long": Reason(
            "The text beside the video is longer than `videos.max_caption_characters`. It is not cut: half a caption "
            "would be trained on.",
            "Shorten the text, or raise `videos.max_caption_characters`.",
        ),
        "caption_not_text": Reason(
            "The text beside the video is neither UTF-8 nor UTF-16 with its mark.", "Save it as UTF-8."
        ),
        "not_a_picture": Reason(
            "The file is no PNG, JPEG, WebP, BMP or TIFF, which is what a given picture may be.",
            "Look what it is (`file NAME`), and save it as PNG.",
        ),
        "not_a_video": Reason(
            "The first bytes are those of no container that is known here.",
            "Look what it is (`file NAME`); a playlist, an image or a page saved as .mp4 is none.",
        ),
        "format_not_allowed": Reason(
            "The container is not among `sandbox.formats`.", "Add it there if you trust FFmpeg's reader of it."
        ),
        "codec_not_allowed": Reason(
            "The codec is not among `sandbox.codecs`, or FFmpeg has no decoder for it.",
            "Add it there if you trust FFmpeg's decoder, or encode the file again.",
        ),
        "no_video_stream": Reason("There is sound or text, but no picture.", "Nothing."),
        "too_many_streams": Reason(
            "The container has more streams than `sandbox.max_streams`.", _NOT_MEANT.format("`sandbox.max_streams`")
        ),
        "too_many_pixels": Reason(
            "The picture is larger than `sandbox.max_pixels`, or one side than `sandbox.max_side`.",
            "Raise both in params.yaml, and `sandbox.memory_bytes` with them.",
        ),
        "too_many_frames": Reason(
            "More frames than `sandbox.max_frames`.",
            "Cut the file into parts, or raise `sandbox.max_frames` and `sandbox.max_seconds`.",
        ),
        "too_many_decoded_bytes": Reason(
            "The decoded frames together are more than `sandbox.max_decoded_bytes`.",
            "Cut the file into parts, or raise the limit.",
        ),
        "expands_too_much": Reason(
            "Decoded, it has more than `sandbox.max_expansion` times its bytes: a picture that hardly changes, or a "
            "file made to fill the memory.",
            "Look at the file; raise the limit if it is a recording of a screen or the like.",
        ),
        "fps_out_of_range": Reason(
            "Frames per second outside `sandbox.min_fps` to `sandbox.max_fps`, often a header that is wrong.",
            "Write the container again (ffmpeg -i OLD -c copy NEW), or widen the range.",
        ),
        "pixel_aspect": Reason(
            "Its pixels are said to be more than 8 times as wide as high, or the reverse.",
            "Correct the aspect ratio in the container.",
        ),
        "size_changes": Reason(
            "The size of the picture changes within the clip.", "Encode the file again at one size."
        ),
        "too_short": Reason(
            "The video, or the shot, is shorter than `videos.min_seconds` or `shots.min_seconds`; the caption has "
            "fewer letters than `captions.checks.min_letters`.",
            "Lower the limit if you want such short ones.",
        ),
        "too_long": Reason(
            "The video is longer than `videos.max_seconds`; the caption has more letters than "
            "`captions.checks.max_letters`, or the model's answer more bytes than are read.",
            "Cut the video into parts, ask for a shorter caption, or raise the limit.",
        ),
        "hdr": Reason(
            "The video is of high dynamic range, and `videos.hdr` is `reject`.",
            "Set `videos.hdr: tone_map`, or grade it for the standard range yourself.",
        ),
        "hdr_matrix": Reason(
            "The video is of high dynamic range, and its colours are coded in a way that is not known here (ICtCp, "
            "Dolby Vision 5, constant luminance).",
            "Encode it again with the matrix of BT.2020, or for the standard range.",
        ),
        "too_small": Reason("A side of the picture is shorter than `videos.min_side`.", "Lower the limit."),
        "unreadable": Reason("The container cannot be read at all.", _SAME_FILE),
        "truncated": Reason(
            "Of a video: a tenth of the frames that it claims, or more, is not there, an interrupted download as a "
            "rule. Of a caption: the model had not ended when its `max_tokens` were spent.",
            "Fetch the video again. For a caption raise `max_tokens`, or ask for a shorter one in the prompt.",
        ),
        "no_frames": Reason("The picture's stream has no packet with a time.", _SAME_FILE),
        "damaged": Reason(
            "Frames that do not decode cleanly, and those up to the next key frame, which are predicted from them: "
            "bytes inside the file are wrong. The other shots of the video are used.",
            "Fetch the file again; what the disk or the recorder spoilt stays out. Of HEVC, VP8, VP9 and MJPEG most "
            "damage decodes without a sign and cannot be found.",
        ),
        "decode_error": Reason(
            "More packets than `sandbox.max_broken` allows do not decode, or more in a row than "
            "`sandbox.max_broken_run`, or the first frame does not.",
            _SAME_FILE,
        ),
        "bad_timestamps": Reason(
            "A tenth of the frames or more has no later time than the frame before; a few are left out.",
            "Write the container again (ffmpeg -i OLD -c copy NEW).",
        ),
        "changed_since_probe": Reason(
            "The bytes are others than those that stage videos has hashed.",
            "Run the pipeline again: stage videos will see the file as a new video. Do not edit files in place.",
        ),
    },
    SANDBOX: {
        "timeout": Reason(
            "Of a video: it took longer than `sandbox.seconds` and `sandbox.seconds_per_frame` allow. Of a caption: "
            "the endpoint gave no answer in time, in any attempt.",
            "On a busy or slow machine raise them; a file that hangs the decoder will not get better. A caption is "
            "asked for again in the next run.",
        ),
        "memory": Reason(
            "It needed more memory than `sandbox.memory_bytes`.",
            "Raise it for large pictures, or for RAFT; it is per process, of which there are `sandbox.workers`.",
        ),
        "too_much_output": Reason(
            "The answer was larger than `sandbox.max_result_bytes`.",
            "Raise it, or lower `shots.part_seconds`, so that one process has less to tell.",
        ),
        "killed": Reason(
            "The kernel ended it, short of memory as a rule.",
            "Lower `sandbox.workers` or `engine.shards_at_once`, or give the machine more memory.",
        ),
        "crashed": Reason(
            "The decoder, or our code on this file, ended in an error; the log has the traceback if there is one.",
            "Report it with the file, if you may: it is a fault of FFmpeg or of ours. Nothing else was harmed.",
        ),
        "bad_result": Reason(
            "The answer was not of the type, range and fit that was declared, so none of it is believed.",
            "Look at the file with suspicion: this is what a video that has taken over its decoder looks like. The log "
            "says which value.",
        ),
    },
    SHOT: {
        "transition": Reason(
            "It is a fade or a dissolve: blended frames.", "Nothing; `shots.dissolve_misfit` says how sure one must be."
        ),
        "too_few_frames": Reason(
            "In shots: a frame is shown longer than `shots.max_seconds`, or no still fell into the shot. In latents: "
            "fewer frames than a latent needs.",
            "Lower `latents.frames` or `latents.stride_frames`, or ask for longer clips (`clips.seconds.min`).",
        ),
        "score_missing": Reason(
            "A score that has a range could not be measured, or what near-duplicates are looked for by (a hash, an "
            "embedding) is null.",
            "Give the score no range in `clips`, or name what measures it in `scores`.",
        ),
        "SCORE_below_min": Reason(
            "The score is below `clips.SCORE.min`.",
            "`stiv funnel --set clips.SCORE.min=VALUE --sheet sheet.html` shows what another limit would keep.",
        ),
        "SCORE_above_max": Reason(
            "The score is above `clips.SCORE.max`.",
            "`stiv funnel --set clips.SCORE.max=VALUE --sheet sheet.html` shows what another limit would keep.",
        ),
        "orientation_not_wanted": Reason("Its orientation is not among `clips.orientations`.", "Add it there."),
        "near_duplicate": Reason(
            "A better clip, or one of an earlier release, shows the same; the row names it.",
            "Lower `clips.duplicate_bits` or raise `clips.duplicate_similarity`; null keeps near-duplicates.",
        ),
        "not_among_best": Reason(
            "It is within all thresholds, but `clips.best` asks for fewer clips.", "Raise `clips.best.clips`."
        ),
    },
    CLIP: {
        "no_caption": Reason(
            "None of `captions.captioners` had an answer.", "Add `describe`, which always has one, or a text beside it."
        ),
        "empty": Reason(
            "The captioner's answer has no text, or nothing is left of it after cleaning.",
            "Look at the column `raw`; of a model, look whether it is given the frames at all.",
        ),
        "thinking_spent_budget": Reason(
            "The model thought until its `max_tokens` were spent, and never answered.",
            "Raise `max_tokens`, or tell the server to have it answer without thinking.",
        ),
        "refused": Reason(
            "The model declined to caption the clip, or the server filtered its answer.",
            "Look at the column `raw` and at the clip; another prompt may help, or another model.",
        ),
        "repetition": Reason(
            "The caption says the same again and again: more of its phrases than `captions.checks.max_repeated`.",
            "A model that loops: look at the server's precision and batch size before you raise the limit.",
        ),
        "language": Reason(
            "The caption is in none of `captions.checks.languages`.",
            "Add its language there, or ask for one of them in the prompt.",
        ),
        "endpoint_error": Reason(
            "The endpoint refused the request, or failed at it in every attempt.",
            "The stage's log says the code; it is asked for again in the next run.",
        ),
        "malformed": Reason(
            "What came is no answer to what was asked: no JSON of the shape that was asked for, another model's or "
            "another request's answer, a page of HTML; or a still is no whole picture.",
            "Look at the column `raw`. Where it is null no answer came, and the next run asks again; else change the "
            "prompt, `answer: json`, or the model.",
        ),
        "no_stills": Reason("Stage shots kept no stills of it: its caption was not judged.", "Run stage shots again."),
        "bad_still": Reason("One of its stills is no picture: its caption was not judged.", "Run stage shots again."),
        "questions_malformed": Reason(
            "A model's answer is no list of questions about its caption: it was not judged.",
            "Look at the stage's log; change the prompt, the model or `max_tokens` of `dsg.judge.questions`.",
        ),
        "questions_missing": Reason(
            "The model that writes questions gave no answer about its caption: it was not judged.",
            "The stage's log says the code; it is asked for again when stage dsg runs again.",
        ),
        "decided": Reason(
            "It was decided before its caption's turn came what its captioner invents.",
            "Nothing: its caption is used; `dsg.until: all` judges every one.",
        ),
        "all_invented": Reason(
            "Every sentence of its caption names an invented object, and `dsg.repair` is drop.",
            "Use another captioner, or `dsg.repair: none`.",
        ),
        "not_listed": Reason(
            "The model's answer names none of `categories.listed`: its category is other.",
            "Look at the prompt, `categories.by.prompt`, and at the descriptions.",
        ),
        "frame_not_found": Reason(
            "No frame of the file has the time at which the clip begins.",
            "The file was changed, or decodes otherwise than before: run the pipeline again from stage videos.",
        ),
        "not_generated": Reason("The sample that was to be judged is not there.", "Run stage samples again."),
        "not_measured": Reason(
            "A metric refuses the video, such as one with too few frames; the log says which and why.",
            "Make videos that the metric can measure, or measure without it.",
        ),
        "not_finite": Reason(
            "A metric gave no number, or an infinite one, of the video; the log says which.",
            "Look at the video; if there is nothing odd about it, this is a fault of the metric.",
        ),
        "no_truth": Reason(
            "The prompt says of no colour, shape and direction what would be right.",
            "Nothing: only prompts of the generated shapes can be judged by rules.",
        ),
    },
    VIEWS: {
        "missing_view": Reason(
            "One of the seven pictures is not in the object's folder.",
            "Render it again: the given view is 000.png, those from the paper's cameras are 001.png to 006.png.",
        ),
        "no_cameras": Reason(
            "The object's folder has no cameras.json, so that nobody knows whence its pictures were taken.",
            "Write it: stiv views-corpus makes folders that show what it holds.",
        ),
        "bad_cameras": Reason(
            "The object's cameras.json is no JSON of that form, or larger than a megabyte.",
            "Give it `views`, a list of an `elevation` and an `azimuth` in degrees for each picture.",
        ),
        "other_cameras": Reason(
            "The pictures were not taken from the paper's cameras: elevations 30 and -20 in turn, azimuths 30 to 330 "
            "by 60, counted from the given view.",
            "Render it again from these: the model is not told the cameras, and knows no others.",
        ),
        "unlike_sizes": Reason(
            "The object's pictures are of several sizes.", "Render them again, all with the same height and width."
        ),
    },
    INGEST: {
        "no_video": Reason("The sample has no file with an ending of `videos.extensions`.", "Add the ending there."),
        "several_videos": Reason("The sample has several videos, and none says which counts.", "Split the sample."),
        "repeated_member": Reason(
            "The tar has two members of this name, as an appended tar has; which of them belongs to the text and the "
            "JSON of the same key, nobody can say.",
            "Write the tar again with one of each.",
        ),
        "text_too_long": Reason("Its text or JSON is longer than any caption.", "Look what it is."),
        "text_unreadable": Reason("Its text is not UTF-8, or its JSON is none.", "Write the sample again."),
        "not_text": Reason(
            "Of a sample: its caption, licence or URL is no text. Of a caption: fewer of its signs are letters than "
            "`captions.checks.min_letter_fraction`.",
            "Write the sample again with text there; look at the caption's column `raw`.",
        ),
        "tar_broken": Reason(
            "The tar ends early or is damaged; what came before the damage is taken in.", "Fetch the tar again."
        ),
        "meta_unreadable": Reason(
            "The JSON of the clip is none, or not of the shape that cosmos-curate and NeMo Curator write.",
            "Look at the file; another version of theirs may write another shape.",
        ),
        "not_valid": Reason("Its JSON says `valid: false`.", "Nothing: its maker did not want it."),
        "listed_twice": Reason("Another clip names the same object in the bucket.", "Nothing."),
    },
}


REPAIRS: dict[str, Reason] = {
    "clock_restarts": Reason(
        "The clock starts again within the file, as where two recordings were joined or a broadcast was interrupted. "
        "What follows goes on where the clock had been; a shot is split there.",
        "Nothing. Each clip of it is found by reading the file from its beginning: ffmpeg -i OLD -c copy NEW.mp4 "
        "makes that quicker.",
    ),
    "frame_order": Reason(
        "The container has no times of presentation, though frames are shown in another order than that of decoding "
        "(AVI with B-frames). The frame shown k-th has the k-th time.",
        "Nothing.",
    ),
    "late_start": Reason(
        "The file begins in the middle of a group of pictures, as what is cut out of a broadcast does. What comes "
        "before the first key frame, or is predicted from there, is left out.",
        "Nothing, unless the first seconds matter: cut the recording at a key frame, or encode it again.",
    ),
    "repeated_times": Reason(
        "Some frames have the time of another. They are left out, as players do.",
        "Nothing; were it a tenth of the frames, the video would fail as `bad_timestamps`.",
    ),
}
"""What a file needs whenever it is read, to be shown as players show it: codes of the column `repairs`."""


def meaning_of(code: str) -> Reason:
    """Return what a code of the column `reason` means.

    Raises:
        KeyError: there is no such code.
    """
    known = {name: reason for group in REASONS.values() for name, reason in group.items()}
    for end in ("below_min", "above_max"):
        if code not in known and code.endswith(f"_{end}"):
            score = code.removesuffix(f"_{end}")
            return Reason(*(text.replace("SCORE", score) for text in known[f"SCORE_{end}"]))
    return known[code]
