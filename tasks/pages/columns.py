"""What the columns of the stages' tables say.

The schemas are in `tasks/storage/tables.py`; a test asks for every column.

The sentences are kept apart from the schemas, so that a better word here makes no table again.
"""

from tasks.storage.scores import SCORES

_OF_VIDEO = {
    "uri": "Path below the source, or s3://...: where the bytes of the video are.",
    "video": "sha256 of the video's bytes, which is its name everywhere; null when they could not be read.",
    "repairs": "Of the video: what is repaired whenever it is read, each as the page of reasons says; empty for most.",
    "licence": "Of the video, as the list of the source says; null without one.",
    "source_url": "Where the video comes from, as the list of the source says; null without one.",
    "caption": "The text beside the video, which is of all of it; null without one.",
    "status": "ok: it goes on to the next stage. rejected: it is fit, but not wanted. failed: it could not be done.",
    "reason": "Why it is not ok: a short fixed code (see Reasons); null when ok.",
}

_CLIP = "Identity of the clip, from the shot that it is at first: 20 digits of `video`, first pts, pts after the last."

_MEASURED, _FROM_STILLS = (
    {score.name: score.meaning for score in SCORES if score.stage == stage} for stage in ("shots", "scores")
)

_SCORED = {
    **_FROM_STILLS,
    "orientation": "landscape, portrait or square.",
    "colours": "Names of up to three main colours, most of the picture first.",
    "video_hash": "32 bytes, perceptual, of four stills in order; near-duplicates differ in few bits.",
    "embedding": "What the stills show, as whole numbers (int16); null without an encoder (`scores.embedding`).",
    "embedder": "Hash of the encoder that made the embedding: embeddings of two do not compare.",
}

COLUMNS: dict[str, dict[str, str]] = {
    "VIDEOS": {
        **_OF_VIDEO,
        "size_bytes": "Of the file.",
        "codec": "FFmpeg's name of it.",
        "width": "Pixels, as shown: upright, with square pixels.",
        "height": "Pixels, as shown.",
        "fps": "Frames per second, in the mean.",
        "seconds": "Length by the times of the packets that are shown, not by its header.",
        "transfer": "Transfer function of its colours, by FFmpeg's name (bt709; smpte2084 is PQ, arib-std-b67 HLG); "
        "null where the file does not say.",
        "primaries": "Primaries of its colours, by FFmpeg's name (bt709, bt2020, smpte432); null where it says none.",
        "colour_range": "limited (16 to 235) or full; null where it does not say, and limited is taken.",
        "frames": "Packets that are shown; what an edit list hides is not.",
    },
    "SPLITS": {
        **_OF_VIDEO,
        "frames": "Frames that were decoded.",
        "shots": "Rows that it has in the table of shots.",
    },
    "SHOTS": {
        **_OF_VIDEO,
        "clip": _CLIP,
        "start_pts": "Presentation timestamp of the first frame, in ticks of `time_base`.",
        "end_pts": "Presentation timestamp of the frame after the last.",
        "time_base": 'Seconds per tick, as a fraction: "1/12800".',
        "start": "Time of the first frame, seconds.",
        "end": "Time of the frame after the last, seconds.",
        "frames": "How many frames it has.",
        "transition": "What begins it: start, cut, fade, dissolve or split (where a long shot was divided).",
        "width": "Of the video, pixels, as shown.",
        "height": "Of the video, pixels, as shown.",
        **_MEASURED,
    },
    "STILLS": {
        "clip": _CLIP,
        "stills": "JPEG pictures, evenly spread over the shot, `shots.analysis_pixels` on the longer side.",
    },
    "CLIPS": {
        "seconds": "Its length: `end` less `start`.",
        "duplicate_of": "The clip that was kept instead, where the reason is near_duplicate; else null.",
    },
    "CAPTIONS": {
        **_OF_VIDEO,
        "clip": _CLIP,
        "captioner": "Who wrote the text: one of `captions.captioners`.",
        "text": "The caption that the clip is trained with; null unless the clip is ok.",
        "short": "The same in one sentence: the model's own, else the first sentence of `text`.",
        "raw": "What the captioner said, as it came: the whole answer of a model.",
        "rules": "Rules of cleaning that changed something, in order (docs/captions.md).",
        "of_whole_video": "The text is of a video of several shots, of which the clip is one.",
        "model": "The model that wrote the text; null without one, as are the columns that follow.",
        "prompt_sha256": "sha256 of the prompt's file.",
        "frames": "How many stills the model saw.",
        "temperature": "With which the model drew words; 0 takes the likeliest.",
        "seed": "That the model was given.",
        "max_tokens": "That the answer could have.",
    },
    "DSG": {
        **_OF_VIDEO,
        "clip": _CLIP,
        "captioner": "Who wrote the text.",
        "of_whole_video": "The text is of a video of several shots, of which the clip is one.",
        "text": "The caption that was judged.",
        "repaired": "Whether what it invents was taken out of it (`dsg.repair`).",
        "repaired_by": "drop: sentences were taken out; rewrite: its model wrote it again; rewrite_drop: both.",
        "objects": "Objects that it names and that are decided: present or invented.",
        "invented": "Objects that all frames deny.",
        "undecided": "Objects that no frame affirms and not all deny.",
        "sentences": "Sentences of the caption.",
        "sentences_decided": "Sentences that name a decided object.",
        "sentences_invented": "Sentences that name an invented object.",
        "keys": "All objects that it names.",
        "repairs": "What was mended of the graph of its questions: see [DSG-Video](../dsg.md).",
    },
    "EVIDENCE": {
        "clip": _CLIP,
        "captioner": "Who wrote the caption.",
        "role": "caption: of what it says; decoy: of what it does not say; decoy_parent: what a decoy depends on; "
        "rewrite: of what the caption that was written again says.",
        "question": "Number of the question within the caption, or its decoys.",
        "kind": "object, attribute, relation, action, count, text or global.",
        "parents": "Questions that it depends on.",
        "sentences": "Sentences that it is of, from 0.",
        "text": "What was asked.",
        "verdict": "present, invented, undecided or void, by all answers together.",
        "frame": "Number of the still, from 0; null: all in order, or not asked.",
        "answer": "yes, no, unclear or missing; null: not asked.",
        "model": "Who answered.",
        "prompt_sha256": "Of the words in which it was asked.",
    },
    "CATEGORIES": {
        **_OF_VIDEO,
        "clip": _CLIP,
        "category": "Name of the category, one of `categories.listed` or other; null without `categories.by`.",
        "nearest": "The category whose description is the most similar, whether it is near enough or not.",
        "similarity": "Cosine of the caption's and that description's embeddings.",
        "margin": "By how much the second is less similar.",
        "model": "What decided: the text encoder, or the model that was asked.",
        "prompt_sha256": "Of the prompt's file; null where nothing was asked.",
        "weight": "Of the category, by `categories.weights`.",
    },
    "LATENTS": {
        **_OF_VIDEO,
        "clip": _CLIP,
        "captioner": "Who wrote the text.",
        "text": "The caption that the text features are of.",
        "aesthetic": "The score, by which `train.*.best_fraction` chooses.",
        "motion": "The score.",
        "width": "Of the source video, pixels: a micro-condition.",
        "height": "Of the source video, pixels: a micro-condition.",
        "crop_top": "Where the crop begins, in pixels of the resized picture: a micro-condition.",
        "crop_left": "Where the crop begins, in pixels of the resized picture: a micro-condition.",
        "stride_frames": "Source frames from one frame taken to the next: a micro-condition.",
        "frames": "Latent frames of the clip.",
        "shard": "The file that holds its latent and its text features.",
        "row": "Its place in the shard.",
        "sha256": "Of the latent's bytes; the loader compares it when it first reads them.",
        "text_sha256": "Of the bytes of the text features.",
        "category": "Of its caption, for `train.*.balance`; null without `categories.weights`.",
        "category_weight": "Of that category: its share of the draws is this by the sum over the categories there.",
    },
}
COLUMNS["SCORES"] = COLUMNS["SHOTS"] | _SCORED
COLUMNS["CLIPS"] = COLUMNS["SCORES"] | COLUMNS["CLIPS"]


def described(table: str, columns: list[str]) -> dict[str, str]:
    """Return what each column of a table says, in the order given.

    Args:
        table: name of its schema in `tasks.storage.tables`.

    Raises:
        KeyError: a column has no sentence here.
    """
    known = COLUMNS[table]
    return {column: known[column] for column in columns}
