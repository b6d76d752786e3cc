"""StivTransformer: noisy latent frames in, velocity out (paper, section 2).

Shapes: B batch, F latent frames, C channels, T temporal tokens, S spatial tokens, L tokens of the context of
cross-attention, D width, E width of the text features, M micro-conditions.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.utils.checkpoint import checkpoint

from stiv_model.network import masking, rope, sequence_parallel
from stiv_model.network.block import Conditions, Modulations, Positions, StivBlock
from stiv_model.network.conditions import MICRO_CONDITIONS, FrameCondition, Text
from stiv_model.network.layers import Embedder, norm, sinusoidal_embedding
from stiv_model.network.masking import TokenMask
from stiv_model.settings import LearnedSettings, ModelSettings

_SINUSOID_WIDTH = 256
_KEEP_ALL = TokenMask(None, None)


class StivTransformer(nn.Module):
    """The image model (T2I) or, with temporal attention and a temporal patch, the video model.

    Args:
        settings: sizes, and the rows of the paper's ablations.
        is_video: with temporal attention, over patches of `settings.temporal_patch` latent frames.
        is_filled: with initial values; without, for who brings other values or needs none, the parameters hold what
            their memory did.

    Attributes:
        temporal_patch: latent frames in one token; 1 of an image model.
        activation_checkpointing: whether the backward pass computes each block once more, instead of keeping its
            activations.
        sequence_group: the ranks that share the temporal tokens, as `share_sequence` set it.
    """

    def __init__(self, settings: ModelSettings, is_video: bool, is_filled: bool = True):
        super().__init__()
        self.settings, self.is_video = settings, is_video
        self.temporal_patch = settings.temporal_patch if is_video else 1
        self.activation_checkpointing = False
        self.sequence_group: ProcessGroup | None = None
        width = settings.width
        image_patch = settings.latent_channels * settings.spatial_patch**2
        patch = self.temporal_patch * image_patch

        self.patch_in = nn.Linear(patch, width)
        if isinstance(settings.positions, LearnedSettings):
            self.places = nn.Parameter(torch.zeros(settings.positions.rows, settings.positions.columns, width))
            self.moments = nn.Parameter(torch.zeros(settings.positions.num_temporal, width)) if is_video else None
        self.timestep = Embedder(_SINUSOID_WIDTH, width)
        has_micro = settings.micro_conditions
        self.micro = Embedder(len(MICRO_CONDITIONS) * _SINUSOID_WIDTH, width) if has_micro else None
        self.pooled_text = nn.Linear(settings.text_width, width)
        self.text_in = nn.Linear(settings.text_width, width)
        attends_to_frames = settings.image_condition != "replacement"
        self.given_in = nn.Linear(image_patch, width) if attends_to_frames else None
        self.modulation = Modulations(settings, is_video) if settings.adaln == "shared" else None
        self.main_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.depth))
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.unmasked_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.unmasked_depth))
        self.last_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.patch_out = nn.Linear(width, patch)
        if is_filled:
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
        at = self.settings.positions
        position_std = at.std if isinstance(at, LearnedSettings) else math.nan
        for name, parameter in self.named_parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02 if name == "mask_token" else position_std)
        for block in (*self.main_blocks, *self.unmasked_blocks):
            if block.temporal_gain is not None:
                nn.init.constant_(block.temporal_gain, self.settings.temporal_gain)
        if not self.settings.cross_attention_norm:
            for block in (*self.main_blocks, *self.unmasked_blocks):
                nn.init.zeros_(block.cross_attention.out.weight)
        for last in (self.last_modulation[1], self.patch_out):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)

    def forward(
        self,
        x_BFCHW: Tensor,
        timestep_B: Tensor,
        text: Text,
        micro_BM: Tensor,
        frame_condition: FrameCondition | None = None,
        token_mask: TokenMask = _KEEP_ALL,
    ) -> Tensor:
        """Return the predicted velocity (B, F, C, H, W) (paper, sections 2.1 to 2.3).

        Args:
            x_BFCHW: noised latent frames; where frames are given and replaced, those are clean in it.
            timestep_B: 0 is noise, 1 is data.
            text: features of the captions.
            micro_BM: one column per name in MICRO_CONDITIONS.
            frame_condition: clean frames for cross-attention; without effect on a model of frame replacement alone.
            token_mask: the tokens that the main blocks see.

        Raises:
            ValueError: the frames or the picture cannot be cut into patches, or are more than the learned positions,
                or cannot be shared by the ranks of `share_sequence`.
        """
        patches, rows, columns = self.patchify(x_BFCHW, self.temporal_patch)
        num_temporal, num_spatial = patches.shape[1:3]
        own = sequence_parallel.own_temporal(num_temporal, num_spatial, token_mask, self.sequence_group)
        x_BTSD = self.patch_in(patches[:, own])
        singleton_BD = self.singleton_condition(timestep_B, text.pooled_BE, micro_BM)
        conditions = self.conditions(singleton_BD, text, frame_condition)
        positions = self.rotary_positions(num_temporal, rows, columns, x_BTSD)
        if isinstance(self.settings.positions, LearnedSettings):
            x_BTSD = x_BTSD + self.learned_positions(num_temporal, rows, columns)[own]

        if token_mask == _KEEP_ALL:
            x_BTSD = self.run_blocks(self.main_blocks, x_BTSD, conditions, positions)
        else:
            h = masking.drop_tokens(x_BTSD, token_mask)
            h = self.run_blocks(self.main_blocks, h, conditions, _kept_positions(positions, token_mask))
            x_BTSD = masking.insert_mask_tokens(h, token_mask, x_BTSD.shape[1], num_spatial, self.mask_token)
        x_BTSD = self.run_blocks(self.unmasked_blocks, x_BTSD, conditions, positions)

        shift, scale = self.last_modulation(singleton_BD)[:, None, None].chunk(2, dim=-1)
        x_BTSD = torch.addcmul(shift, norm(x_BTSD, self.settings.norm_epsilon), 1 + scale)
        return self.unpatchify(sequence_parallel.gather(self.patch_out(x_BTSD), self.sequence_group), rows, columns)

    def singleton_condition(self, timestep_B: Tensor, pooled_BE: Tensor, micro_BM: Tensor) -> Tensor:
        """Return one vector per sample (B, D): each part of the condition normed, then summed (paper, section 2.1).

        Args:
            timestep_B: 0 is noise, 1 is data.
            pooled_BE: the text, as one vector.
            micro_BM: one column per name in MICRO_CONDITIONS.
        """
        dtype = self.patch_in.weight.dtype
        parts = [
            self.timestep(sinusoidal_embedding(1000 * timestep_B, _SINUSOID_WIDTH).to(dtype)),
            self.pooled_text(pooled_BE.to(dtype)),
        ]
        if self.micro is not None:
            parts.append(self.micro(sinusoidal_embedding(micro_BM, _SINUSOID_WIDTH).flatten(1).to(dtype)))
        if self.settings.condition_norm:
            parts = [norm(part, self.settings.norm_epsilon) for part in parts]
        return torch.stack(parts).sum(0)

    def conditions(self, singleton_BD: Tensor, text: Text, frame_condition: FrameCondition | None) -> Conditions:
        """Return what all blocks are conditioned on: the singleton condition, its shared AdaLN, and the context.

        Raises:
            ValueError: clean frames for cross-attention cannot be cut into patches.
        """
        modulation = None if self.modulation is None else self.modulation(singleton_BD)
        epsilon = self.settings.norm_epsilon
        context_BLD = norm(self.text_in(text.tokens_BLE.to(singleton_BD.dtype)), epsilon)
        mask_BL = text.mask_BL
        if self.given_in is not None and frame_condition is not None:
            is_clean_BF = frame_condition.is_clean_BF
            frames = is_clean_BF.any(0).nonzero()[:, 0]  # those that no sample is given are left out
            latents_BFCHW = frame_condition.latents_BFCHW[:, frames].to(singleton_BD.dtype)
            patches, rows, columns = self.patchify(latents_BFCHW, 1)
            positions_FSD = self.frame_positions(frames, rows, columns).to(singleton_BD.dtype)
            frames_BLD = (norm(self.given_in(patches), epsilon) + positions_FSD).flatten(1, 2)
            context_BLD = torch.cat([context_BLD, frames_BLD], dim=1)
            mask_BL = torch.cat([mask_BL, is_clean_BF[:, frames].repeat_interleave(rows * columns, dim=1)], dim=1)
        return Conditions(singleton_BD, modulation, context_BLD, mask_BL)

    def frame_positions(self, frames: Tensor, rows: int, columns: int) -> Tensor:
        """Return positions of the patches of clean frames (F, S, D), since cross-attention has no rotary ones.

        They are sinusoidal embeddings of frame, row and column, side by side.

        Args:
            frames: indices of the latent frames (F,).
            rows: of patches.
            columns: of patches.
        """
        third = self.settings.width // 6 * 2
        axes = (frames, *(torch.arange(count, device=frames.device) for count in (rows, columns)))
        grid = torch.cartesian_prod(*axes).double()
        embedded = sinusoidal_embedding(grid, third).flatten(1)
        embedded = F.pad(embedded, (0, self.settings.width - embedded.shape[1]))
        return rearrange(embedded, "(F S) D -> F S D", S=rows * columns)

    def rotary_positions(self, num_temporal: int, rows: int, columns: int, like: Tensor) -> Positions:
        """Return the rotary factors of all tokens, (1, 1, S, 1, H / 2) in space and (1, T, 1, 1, H / 2) in time.

        They are on the device of `like` and at least as precise.

        Without effect where positions are learned: both are None. (Paper, sections 2.1 and 2.4.)
        """
        settings = self.settings.positions
        if isinstance(settings, LearnedSettings):
            return Positions(None, None)
        size, base, dtype = self.settings.head_size, settings.base, torch.promote_types(like.dtype, torch.float32)
        spatial = rope.spatial_angles(rows, columns, size, base, settings.spatial_scale, like.device)
        temporal = rope.temporal_angles(num_temporal, size, base, settings.temporal_scale, like.device)
        return Positions(
            rope.rotary_factors(rearrange(spatial.to(dtype), "S H -> 1 1 S 1 H")),
            rope.rotary_factors(rearrange(temporal.to(dtype), "T H -> 1 T 1 1 H")),
        )

    def learned_positions(self, num_temporal: int, rows: int, columns: int) -> Tensor:
        """Return the sum of a learned vector per spatial and one per temporal token (T, S, D); (1, S, D) of an image.

        The paper's model before rotary positions (Tab. 2).

        Raises:
            ValueError: there are more tokens than learned vectors.
        """
        for name, wanted, have in (
            ("rows", rows, self.places.shape[0]),
            ("columns", columns, self.places.shape[1]),
            ("num_temporal", num_temporal, 1 if self.moments is None else len(self.moments)),
        ):
            if wanted > have and (name != "num_temporal" or self.is_video):
                raise ValueError(
                    f"model.positions.{name} is {have}, but the sample has {wanted} tokens: make it {wanted}"
                )
        spatial_SD = self.places[:rows, :columns].flatten(0, 1)
        return spatial_SD[None] if self.moments is None else spatial_SD + self.moments[:num_temporal, None]

    def share_sequence(self, group: ProcessGroup | None) -> None:
        """Share the temporal tokens of each sample out over ranks (docs/sequence.md); None ends that.

        They must call the model together, with the same inputs. Each gets the whole velocity. Gradients of
        parameters are right when averaged over the ranks; those of the inputs are not.

        Args:
            group: as `sequence_parallel.new_group` returned it.

        Raises:
            ValueError: the model has no temporal attention.
        """
        if group is not None and not self.is_video:
            raise ValueError("an image model has one temporal token, and no sequence to share: sequence_ranks is 1")
        self.sequence_group = group
        for block in (*self.main_blocks, *self.unmasked_blocks):
            assert isinstance(block, StivBlock)
            block.sequence_group = group

    def compile_blocks(self) -> None:
        """Compile each block at its first call: the same results within rounding. All blocks share what is compiled.

        Shapes are static: another size or number of tokens is compiled anew. Only `forward` is compiled, so that
        hooks on a block, as DeepSpeed's that gather its parameters, run outside.
        """
        for block in (*self.main_blocks, *self.unmasked_blocks):
            block.forward = torch.compile(block.forward, dynamic=False)

    def run_blocks(self, blocks: nn.ModuleList, x_BTSD: Tensor, conditions: Conditions, positions: Positions) -> Tensor:
        """Return the tokens (B, T, S, D) after some blocks, with activation checkpointing where that is on."""
        for block in blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTSD = checkpoint(block, x_BTSD, conditions, positions, use_reentrant=False)
            else:
                x_BTSD = block(x_BTSD, conditions, positions)
        return x_BTSD

    def patchify(self, x_BFCHW: Tensor, temporal_patch: int) -> tuple[Tensor, int, int]:
        """Return the patches (B, T, S, values of a patch) and how many rows and columns of them a frame has.

        Raises:
            ValueError: the channels are not the model's, or frames, height or width do not divide by the patch.
        """
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
        patches = rearrange(
            x_BFCHW,
            "B (T pt) C (h p) (w q) -> B T (h w) (pt C p q)",
            pt=temporal_patch,
            p=patch,
            q=patch,
        )
        return patches, height // patch, width // patch

    def unpatchify(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """Return latent frames (B, F, C, H, W) of patches (B, T, S, values): `patchify` undone."""
        patch = self.settings.spatial_patch
        return rearrange(
            patches,
            "B T (h w) (pt C p q) -> B (T pt) C (h p) (w q)",
            h=rows,
            w=columns,
            pt=self.temporal_patch,
            p=patch,
            q=patch,
        )


def _kept_positions(positions: Positions, token_mask: TokenMask) -> Positions:
    """Return the rotary factors of the kept tokens."""
    spatial, temporal = positions
    if spatial is not None and token_mask.spatial_BK is not None:
        spatial = rearrange(spatial[0, 0, token_mask.spatial_BK], "B S 1 H -> B 1 S 1 H")
    if temporal is not None and token_mask.temporal_BK is not None:
        temporal = temporal[0, token_mask.temporal_BK]
    return Positions(spatial, temporal)
