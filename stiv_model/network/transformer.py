"""StivTransformer: noisy latent frames in, velocity out (paper, section 2).

Shapes: B batch, F latent frames, C channels, T temporal tokens, S spatial tokens, L keys of cross-attention,
D width, E width of the text features, M micro-conditions.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from stiv_model.network import masking, rope, sequence_parallel
from stiv_model.network.block import Conditions, Modulations, Positions, StivBlock
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.layers import Embedder, norm, sinusoid
from stiv_model.network.masking import TokenMask
from stiv_model.settings import LearnedSettings, ModelSettings

_SINUSOID_WIDTH = 256
_ALL = TokenMask(None, None)


class StivTransformer(nn.Module):
    """The image model (T2I) or, with temporal attention and a temporal patch, the video model.

    Args:
        settings: sizes, and the rows of the paper's ablations.
        is_video: with temporal attention, over patches of `settings.temporal_patch` latent frames.
    """

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.settings, self.is_video = settings, is_video
        self.temporal_patch = settings.temporal_patch if is_video else 1
        self.activation_checkpointing = False
        self.sequence: ProcessGroup | None = None
        width = settings.width
        picture = settings.latent_channels * settings.spatial_patch**2
        patch = self.temporal_patch * picture

        self.patch_in = nn.Linear(patch, width)
        if isinstance(settings.positions, LearnedSettings):
            self.places = nn.Parameter(torch.zeros(settings.positions.rows, settings.positions.columns, width))
            self.moments = nn.Parameter(torch.zeros(settings.positions.moments, width)) if is_video else None
        self.timestep = Embedder(_SINUSOID_WIDTH, width)
        has_micro = settings.micro_conditions
        self.micro = Embedder(len(MICRO_CONDITIONS) * _SINUSOID_WIDTH, width) if has_micro else None
        self.pooled_text = nn.Linear(settings.text_width, width)
        self.text_in = nn.Linear(settings.text_width, width)
        sees_given = settings.image_condition != "replacement"
        self.given_in = nn.Linear(picture, width) if sees_given else None
        self.modulation = Modulations(settings, is_video) if settings.adaln == "shared" else None
        self.main_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.depth))
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.unmasked_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.unmasked_depth))
        self.last_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.patch_out = nn.Linear(width, patch)
        self._initialise()

    def _initialise(self) -> None:
        """Linear layers as Xavier would; zero those that modulate, that end cross-attention, and the last one.

        Cross-attention with a norm after it is not zeroed: a zero there has a gradient of 1/sqrt(epsilon).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Modulations):
                nn.init.zeros_(module.linear.weight)
        for parameter in self.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02)  # mask token and learned positions
        if not self.settings.cross_attention_norm:
            for block in (*self.main_blocks, *self.unmasked_blocks):
                nn.init.zeros_(block.cross_attention.out.weight)
        for last in (self.last_modulation[1], self.patch_out):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)

    def forward(
        self,
        x_BFCHW: Tensor,
        time_B: Tensor,
        text: Text,
        micro_BM: Tensor,
        given: FrameCondition | None = None,
        kept: TokenMask = _ALL,
    ) -> Tensor:
        """Return the velocity (B, F, C, H, W).

        Args:
            x_BFCHW: noised latent frames; clean ones where they are given and stand in their places.
            time_B: 0 is noise, 1 is data.
            text: features of the captions.
            micro_BM: one column per name in MICRO_CONDITIONS.
            given: given frames for cross-attention; without effect on a model that has only frame replacement.
            kept: tokens that the main blocks see.

        Raises:
            ValueError: the frames or the picture cannot be cut into patches, or are more than the learned positions,
                or cannot be shared by the ranks of `share_sequence`.
        """
        tokens, rows, columns = self.patchify(x_BFCHW, self.temporal_patch)
        moments, places = tokens.shape[1:3]
        mine = sequence_parallel.share(moments, places, kept, self.sequence)
        x_BTSD = self.patch_in(tokens[:, mine])
        singleton_BD = self.singleton(time_B, text.pooled_BE, micro_BM)
        on = self.conditions(singleton_BD, text, given)
        every = self.positions(moments, rows, columns, x_BTSD)
        if isinstance(self.settings.positions, LearnedSettings):
            x_BTSD = x_BTSD + self.learned_positions(moments, rows, columns)[mine]

        if kept == _ALL:
            x_BTSD = self.run(self.main_blocks, x_BTSD, on, every)
        else:
            h = self.run(self.main_blocks, masking.keep(x_BTSD, kept), on, _at(every, kept))
            x_BTSD = masking.fill(h, kept, x_BTSD.shape[1], places, self.mask_token)
        x_BTSD = self.run(self.unmasked_blocks, x_BTSD, on, every)

        shift, scale = self.last_modulation(singleton_BD)[:, None, None].chunk(2, dim=-1)
        x_BTSD = torch.addcmul(shift, norm(x_BTSD, self.settings.norm_epsilon), 1 + scale)
        return self.unpatchify(sequence_parallel.gather(self.patch_out(x_BTSD), self.sequence), rows, columns)

    def singleton(self, time_B: Tensor, pooled_BE: Tensor, micro_BM: Tensor) -> Tensor:
        """Return the condition that is one vector per sample (B, D): each part normed, then summed."""
        dtype = self.patch_in.weight.dtype
        parts = [
            self.timestep(sinusoid(1000 * time_B, _SINUSOID_WIDTH).to(dtype)),
            self.pooled_text(pooled_BE.to(dtype)),
        ]
        if self.micro is not None:
            parts.append(self.micro(sinusoid(micro_BM, _SINUSOID_WIDTH).flatten(1).to(dtype)))
        if self.settings.condition_norm:
            parts = [norm(part, self.settings.norm_epsilon) for part in parts]
        return torch.stack(parts).sum(0)

    def conditions(self, singleton_BD: Tensor, text: Text, given: FrameCondition | None) -> Conditions:
        """Return what all blocks share: one AdaLN for all of them, and what cross-attention sees."""
        modulation = None if self.modulation is None else self.modulation(singleton_BD)
        epsilon = self.settings.norm_epsilon
        seen_BLD = norm(self.text_in(text.tokens_BLE.to(singleton_BD.dtype)), epsilon)
        mask_BL = text.mask_BL
        if self.given_in is not None and given is not None:
            is_clean_BF = given.is_clean_BF
            frames = is_clean_BF.any(0).nonzero()[:, 0]  # those that no sample is given are left out
            picture, rows, columns = self.patchify(given.latents_BFCHW[:, frames].to(singleton_BD.dtype), 1)
            where = self.given_positions(frames, rows, columns).to(singleton_BD.dtype)
            given_BLD = (norm(self.given_in(picture), epsilon) + where).flatten(1, 2)
            seen_BLD = torch.cat([seen_BLD, given_BLD], dim=1)
            mask_BL = torch.cat([mask_BL, is_clean_BF[:, frames].repeat_interleave(rows * columns, dim=1)], dim=1)
        return Conditions(singleton_BD, modulation, seen_BLD, mask_BL)

    def given_positions(self, frames: Tensor, rows: int, columns: int) -> Tensor:
        """Return (F, S, D): sinusoids of frame, row and column, since cross-attention has no rotary positions."""
        third = self.settings.width // 6 * 2
        axes = (frames, *(torch.arange(count, device=frames.device) for count in (rows, columns)))
        grid = torch.cartesian_prod(*axes).double()
        where = sinusoid(grid, third).flatten(1)
        where = F.pad(where, (0, self.settings.width - where.shape[1]))
        return rearrange(where, "(F S) D -> F S D", S=rows * columns)

    def positions(self, moments: int, rows: int, columns: int, like: Tensor) -> Positions:
        """Return the turns of all tokens, on the device of `like` and at least as precise."""
        given = self.settings.positions
        if isinstance(given, LearnedSettings):
            return Positions(None, None)
        size, base, dtype = self.settings.head_size, given.base, torch.promote_types(like.dtype, torch.float32)
        spatial = rope.spatial_angles(rows, columns, size, base, given.spatial_scale, like.device)
        temporal = rope.temporal_angles(moments, size, base, given.temporal_scale, like.device)
        return Positions(
            rope.turns(rearrange(spatial.to(dtype), "S H -> 1 1 S 1 H")),
            rope.turns(rearrange(temporal.to(dtype), "T H -> 1 T 1 1 H")),
        )

    def learned_positions(self, moments: int, rows: int, columns: int) -> Tensor:
        """Return (T, S, D), the sum of a vector per place and one per moment; (1, S, D) of an image model.

        Raises:
            ValueError: there are more tokens than learned vectors.
        """
        for name, wanted, have in (
            ("rows", rows, self.places.shape[0]),
            ("columns", columns, self.places.shape[1]),
            ("moments", moments, 1 if self.moments is None else len(self.moments)),
        ):
            if wanted > have and (name != "moments" or self.is_video):
                raise ValueError(f"{wanted} {name} of tokens, but model.positions.{name} is {have}: make it {wanted}")
        where = self.places[:rows, :columns].flatten(0, 1)
        return where[None] if self.moments is None else where + self.moments[:moments, None]

    def share_sequence(self, group: ProcessGroup | None) -> None:
        """Share the temporal tokens of each sample out over the ranks of `sequence.join`; None ends that.

        They must call the model together, with the same inputs. Each gets the whole velocity. Gradients of
        parameters are right when averaged over the ranks; those of the inputs are not.

        Raises:
            ValueError: the model has no temporal attention.
        """
        if group is not None and not self.is_video:
            raise ValueError("an image model has one temporal token, and no sequence to share: sequence_ranks is 1")
        self.sequence = group
        for block in (*self.main_blocks, *self.unmasked_blocks):
            assert isinstance(block, StivBlock)
            block.sequence = group

    def compile_blocks(self) -> None:
        """Compile each block at its first call: the same results within rounding. All blocks share what is compiled.

        Shapes are static: another size or number of tokens is compiled anew. Only `forward` is compiled, so that
        hooks on a block, as DeepSpeed's that gather its parameters, run outside.
        """
        for block in (*self.main_blocks, *self.unmasked_blocks):
            block.forward = torch.compile(block.forward, dynamic=False)

    def run(self, blocks: nn.ModuleList, x_BTSD: Tensor, on: Conditions, at: Positions) -> Tensor:
        for block in blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTSD = checkpoint(block, x_BTSD, on, at, use_reentrant=False)
            else:
                x_BTSD = block(x_BTSD, on, at)
        return x_BTSD

    def patchify(self, x_BFCHW: Tensor, temporal_patch: int) -> tuple[Tensor, int, int]:
        """Return the patches (B, T, S, values) and how many rows and columns of them a frame has."""
        frames, channels, height, width = x_BFCHW.shape[1:]
        patch = self.settings.spatial_patch
        if channels != self.settings.latent_channels:
            raise ValueError(
                f"the latents have {channels} channels, model.latent_channels is {self.settings.latent_channels}"
            )
        if frames % temporal_patch:
            raise ValueError(
                f"{frames} latent frames cannot be cut into patches of model.temporal_patch = {temporal_patch}"
            )
        if height % patch or width % patch:
            raise ValueError(
                f"latent frames of {height} x {width} cannot be cut into patches of model.spatial_patch = {patch}"
            )
        tokens = rearrange(
            x_BFCHW,
            "B (T pt) C (h p) (w q) -> B T (h w) (pt C p q)",
            pt=temporal_patch,
            p=patch,
            q=patch,
        )
        return tokens, height // patch, width // patch

    def unpatchify(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        patch = self.settings.spatial_patch
        return rearrange(
            tokens,
            "B T (h w) (pt C p q) -> B (T pt) C (h p) (w q)",
            h=rows,
            w=columns,
            pt=self.temporal_patch,
            p=patch,
            q=patch,
        )


def _at(every: Positions, kept: TokenMask) -> Positions:
    """Return the positions of the kept tokens."""
    spatial, temporal = every
    if spatial is not None and kept.places_BK is not None:
        spatial = rearrange(spatial[0, 0, kept.places_BK], "B S 1 H -> B 1 S 1 H")
    if temporal is not None and kept.moments_BK is not None:
        temporal = temporal[0, kept.moments_BK]
    return Positions(spatial, temporal)
