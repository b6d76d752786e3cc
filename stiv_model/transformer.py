"""StivTransformer: noisy latent frames in, velocity out (paper, section 2).

Shapes: B batch, F latent frames, C channels, T temporal tokens, S spatial tokens, K kept ones, L text tokens,
D width, E width of the text features, M micro-conditions.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stiv_model import masking, rope
from stiv_model.block import Conditions, Positions, StivBlock
from stiv_model.conditions import MICRO_CONDITIONS, Text
from stiv_model.layers import Embedder, Modulation, norm, sinusoid
from stiv_model.settings import ModelSettings

_SINUSOID_WIDTH = 256


class StivTransformer(nn.Module):
    """The image model (T2I) or, with temporal attention and a temporal patch, the video model.

    Args:
        settings: sizes.
        is_video: with temporal attention, over patches of `settings.temporal_patch` latent frames.
    """

    def __init__(self, settings: ModelSettings, is_video: bool):
        super().__init__()
        self.settings, self.is_video = settings, is_video
        self.temporal_patch = settings.temporal_patch if is_video else 1
        self.activation_checkpointing = False
        width = settings.width
        patch = settings.latent_channels * self.temporal_patch * settings.spatial_patch**2

        self.patch_in = nn.Linear(patch, width)
        self.timestep = Embedder(_SINUSOID_WIDTH, width)
        self.micro = Embedder(len(MICRO_CONDITIONS) * _SINUSOID_WIDTH, width)
        self.pooled_text = nn.Linear(settings.text_width, width)
        self.text_in = nn.Linear(settings.text_width, width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.main_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.depth))
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.unmasked_blocks = nn.ModuleList(StivBlock(settings, is_video) for _ in range(settings.unmasked_depth))
        self.last_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.patch_out = nn.Linear(width, patch)
        self._initialise()

    def _initialise(self) -> None:
        """Linear layers as Xavier would; zero those that modulate, that end cross-attention, and the last one."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)
        silent = [block.cross_attention.out for block in (*self.main_blocks, *self.unmasked_blocks)]
        for last in (*silent, self.modulation[-1], self.last_modulation[-1], self.patch_out):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)

    def forward(
        self, x_BFCHW: Tensor, time_B: Tensor, text: Text, micro_BM: Tensor, kept_BK: Tensor | None = None
    ) -> Tensor:
        """Return the velocity (B, F, C, H, W).

        Args:
            x_BFCHW: noised latent frames, clean ones where they are given.
            time_B: 0 is noise, 1 is data.
            text: features of the captions.
            micro_BM: one column per name in MICRO_CONDITIONS.
            kept_BK: places that the main blocks see; None is all.

        Raises:
            ValueError: the frames or the picture cannot be cut into patches.
        """
        tokens, rows, columns = self.patchify(x_BFCHW)
        x_BTSD = self.patch_in(tokens)
        condition = self.singleton(time_B, text.pooled_BE, micro_BM)
        on = self.conditions(condition, text)
        every = self.positions(x_BTSD.shape[1], rows, columns, x_BTSD.device)

        if kept_BK is None:
            x_BTSD = self.run(self.main_blocks, x_BTSD, on, every)
        else:
            turn = every.spatial[kept_BK].repeat_interleave(x_BTSD.shape[1], dim=0)[:, None]
            kept = Positions(turn, every.temporal)
            x_BTKD = self.run(self.main_blocks, masking.keep(x_BTSD, kept_BK), on, kept)
            x_BTSD = masking.fill(x_BTKD, kept_BK, rows * columns, self.mask_token)
        x_BTSD = self.run(self.unmasked_blocks, x_BTSD, on, every)

        shift, scale = self.last_modulation(condition)[:, None, None].chunk(2, dim=-1)
        x_BTSD = norm(x_BTSD, self.settings.norm_epsilon) * (1 + scale) + shift
        return self.unpatchify(self.patch_out(x_BTSD), rows, columns)

    def singleton(self, time_B: Tensor, pooled_BE: Tensor, micro_BM: Tensor) -> Tensor:
        """Return the condition that is one vector per sample (B, D): each part normed, then summed."""
        dtype = self.patch_in.weight.dtype
        parts = (
            self.timestep(sinusoid(1000 * time_B, _SINUSOID_WIDTH).to(dtype)),
            self.micro(sinusoid(micro_BM, _SINUSOID_WIDTH).flatten(1).to(dtype)),
            self.pooled_text(pooled_BE.to(dtype)),
        )
        return torch.stack([norm(part, self.settings.norm_epsilon) for part in parts]).sum(0)

    def conditions(self, condition_BD: Tensor, text: Text) -> Conditions:
        """Return what all blocks share: one AdaLN for all of them, and the projected text."""
        six = self.modulation(condition_BD)[:, None].chunk(6, dim=-1)
        text_BLD = norm(self.text_in(text.tokens_BLE.to(condition_BD.dtype)), self.settings.norm_epsilon)
        return Conditions(Modulation(*six[:3]), Modulation(*six[3:]), text_BLD, text.mask_BL)

    def positions(self, frames: int, rows: int, columns: int, device: torch.device) -> Positions:
        size, base = self.settings.width // self.settings.heads, self.settings.rope_base
        return Positions(
            rope.spatial_angles(rows, columns, size, base, device),
            rope.angles(torch.arange(frames, device=device), size, base),
        )

    def run(self, blocks: nn.ModuleList, x_BTSD: Tensor, on: Conditions, at: Positions) -> Tensor:
        for block in blocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x_BTSD = checkpoint(block, x_BTSD, on, at, use_reentrant=False)
            else:
                x_BTSD = block(x_BTSD, on, at)
        return x_BTSD

    def patchify(self, x_BFCHW: Tensor) -> tuple[Tensor, int, int]:
        """Return the patches (B, T, S, values) and how many rows and columns of them a frame has."""
        frames, channels, height, width = x_BFCHW.shape[1:]
        patch = self.settings.spatial_patch
        if channels != self.settings.latent_channels:
            raise ValueError(
                f"the latents have {channels} channels, model.latent_channels is {self.settings.latent_channels}"
            )
        if frames % self.temporal_patch:
            raise ValueError(
                f"{frames} latent frames cannot be cut into patches of model.temporal_patch = {self.temporal_patch}"
            )
        if height % patch or width % patch:
            raise ValueError(
                f"latent frames of {height} x {width} cannot be cut into patches of model.spatial_patch = {patch}"
            )
        tokens = rearrange(
            x_BFCHW,
            "B (T pt) C (h p) (w q) -> B T (h w) (pt C p q)",
            pt=self.temporal_patch,
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
