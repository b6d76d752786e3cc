"""The small captioner's network: stills in, a sentence out, word by word.

Each frame becomes a few tokens by convolutions and attention pooling; two transformer layers let the tokens of all
frames look at one another; a GRU, which knows only the words so far, asks them what the next word is. So it writes
whatever sentence is likely, and what it does not see it makes up from what it has read, as a language model does.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from stiv_model.captioner.files import BEGIN, END, CaptionerConfig, index_of

# B scenes or single frames, F frames of each, C channels, H and W pixels, Q tokens of a frame, S = F Q tokens in all,
# D features, T words, V words of the vocabulary


class CaptionerNetwork(nn.Module):
    """Stills to sentence.

    Args:
        config: sizes and vocabulary.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__()
        width, vocabulary = config.features, len(config.words)
        self.config = config
        inputs = (3, *config.channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 5 if before == 3 else 3, stride=2, padding=2 if before == 3 else 1)
            for before, after in zip(inputs, config.channels, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, after) for after in config.channels)
        side, last = config.pixels // 2 ** len(config.channels), config.channels[-1]
        # an object is larger than what a place has seen by now
        self.around = nn.Sequential(
            nn.Conv2d(last, last, 5, padding=2, groups=last), nn.GELU(), nn.Conv2d(last, last, 1)
        )
        self.places = nn.Parameter(0.3 * waves_of_places(side, width))
        self.to_features = nn.Linear(last, width)
        self.pooling = nn.Linear(width, config.frame_tokens)
        self.token_kinds = nn.Parameter(0.1 * torch.randn(config.frame_tokens, width))
        # which of how many frames: without it no order, and no direction
        self.times = nn.Parameter(0.1 * torch.randn(config.frames, config.frames, width))
        self.to_change = nn.Linear(width, width, bias=False)
        self.mixing = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True),
            config.layers,
            norm=nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        self.word_vectors = nn.Embedding(vocabulary, width)
        self.memory = nn.GRU(width, width, batch_first=True)
        self.look = nn.MultiheadAttention(width, 4, batch_first=True)
        self.speak = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, vocabulary))

    def see(self, pictures_BCHW: Tensor) -> Tensor:
        """Return the tokens of single frames (B, Q, D); pictures are RGB, 0 to 1."""
        x_BCHW = (2 * pictures_BCHW - 1).contiguous(memory_format=torch.channels_last)  # a third faster
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BCHW = functional.relu(norm(convolution(x_BCHW)))
        x_BCHW = x_BCHW + self.around(x_BCHW)
        x_BPD = self.to_features(rearrange(x_BCHW, "B C H W -> B (H W) C"))
        # where a token looks depends on what is there; what it brings also says where that is
        weights_BQP = self.pooling(x_BPD).softmax(dim=1).transpose(1, 2)
        return weights_BQP @ (x_BPD + self.places) + self.token_kinds

    def relate(self, tokens_BFQD: Tensor) -> Tensor:
        """Return the tokens (B, S, D) of frames that are seen together, in order of time."""
        frames = tokens_BFQD.shape[1]
        # what moved is a difference, which attention alone takes long to discover
        change_BFQD = tokens_BFQD - torch.cat([tokens_BFQD[:, :1], tokens_BFQD[:, :-1]], dim=1)
        timed_BFQD = tokens_BFQD + self.to_change(change_BFQD) + self.times[frames - 1, :frames, None]
        return self.mixing(rearrange(timed_BFQD, "B F Q D -> B (F Q) D"))

    def next_words(self, seen_BSD: Tensor, words_BT: Tensor, state_1BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what comes after each word, as logits (B, T, V), and the GRU's state after the last."""
        said_BTD, state_1BD = self.memory(self.word_vectors(words_BT), state_1BD)
        found_BTD, _ = self.look(said_BTD, seen_BSD, seen_BSD, need_weights=False)
        return self.speak(torch.cat([said_BTD, found_BTD], dim=-1)), state_1BD

    @torch.no_grad()
    def say(self, seen_BSD: Tensor) -> list[list[str]]:
        """Return the likeliest word after each word, until the end: one sentence for each of B."""
        words, config = seen_BSD.new_full((len(seen_BSD), 1), index_of(BEGIN), dtype=torch.long), self.config
        said, state = [], None
        for _ in range(config.max_words):
            logits_BTV, state = self.next_words(seen_BSD, words, state)
            words = logits_BTV[:, -1:].argmax(dim=-1)
            said.append(words[:, 0])
            if bool((torch.stack(said) == index_of(END)).any(dim=0).all()):
                break
        sentences = [[config.words[word] for word in one] for one in torch.stack(said, dim=1).tolist()]
        return [one[: one.index(END)] if END in one else one for one in sentences]


def waves_of_places(side: int, width: int) -> Tensor:
    """Return where `places` starts: sines and cosines of x and y, from which both can be read.

    Returns:
        float32 of shape (side * side, width).
    """
    along = torch.linspace(-1, 1, side)
    angles = along[:, None] * torch.arange(1, width // 4 + 1, device=along.device) * torch.pi / 4
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    x, y = waves.repeat(side, 1), waves.repeat_interleave(side, dim=0)
    return torch.cat([x, y], dim=1)
