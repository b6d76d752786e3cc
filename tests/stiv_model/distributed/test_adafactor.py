"""Adafactor under ZeRO on 1, 2 and 3 real ranks. As a script, this file runs them."""

import gc
import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import mse_loss

from stiv_model.process_exit import die_with_parent

STEPS, RATE, DECAY = 30, 2e-3, 0.1
BATCH, PLACES, WIDTH = 12, 6, 5
RANKS = (1, 2, 3)
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"bf16": {"enabled": True}},
    "accumulated and clipped": {"gradient_accumulation_steps": 2, "gradient_clipping": 0.05},
    "offloaded in sub-groups": {
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": 2,
        "offload_optimizer": {"device": "cpu"},
        "sub_group_size": 100,
    },
    "ZeRO-1": {"stage": 1, "bf16": {"enabled": True}},
    "ZeRO-2": {"stage": 2},
}


class Reference:
    """The equations of the optimizer, plainly, on the whole parameters of one process, in float64."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, decay: float = DECAY):
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        self.state: dict[str, dict[str, Tensor]] = {}

    def step(self, weights: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
        for name, weight in weights.items():
            gradient = gradients[name].to(weight.dtype)
            own = self.state.setdefault(name, {})
            if weight.ndim > 1:
                square = gradient.reshape(len(gradient), -1).square() + 1e-30
                row = self.average(own, "row", square.mean(1, keepdim=True), self.beta2)
                column = self.average(own, "column", square.mean(0, keepdim=True), self.beta2)
                variance = (row @ column / row.mean()).reshape(weight.shape)
            else:
                variance = self.average(own, "variance", gradient.square() + 1e-30, self.beta2)
            change = self.average(own, "momentum", RATE * gradient / variance.sqrt(), self.beta1)
            weight -= change + RATE * self.decay * weight

    def average(self, own: dict[str, Tensor], key: str, value: Tensor, beta: float) -> Tensor:
        own[key] = beta * own.get(key, torch.zeros_like(value)) + (1 - beta) * value
        return own[key]


class Net(nn.Module):
    """Matrices, vectors, a convolution, a table of positions, one row, one number: odd sizes, so that shards pad."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.positions = nn.Parameter(0.1 * torch.randn(2, 3, WIDTH))
        self.patch = nn.Conv1d(WIDTH, 7, 2, stride=2)
        self.up = nn.Linear(7, 33)
        self.norm = nn.LayerNorm(33)
        self.down = nn.Linear(33, 7)
        self.row = nn.Parameter(torch.full((1, 7), 0.5))
        self.number = nn.Parameter(torch.tensor([0.3]))
        self.silent = nn.Parameter(torch.randn(4, 7))  # behind a closed gate: its gradient is zero

    def forward(self, x_BPW: Tensor) -> Tensor:
        x_BPW = x_BPW + self.positions.flatten(0, 1)
        hidden = self.norm(torch.tanh(self.up(self.patch(x_BPW.mT).mT)))
        return (self.down(hidden) * self.row).mean(1) + self.number + 0 * self.silent.sum(0)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x_BPW = torch.randn(BATCH, PLACES, WIDTH, generator=generator)
    return x_BPW, x_BPW.mean((1, 2))[:, None].tanh() * torch.arange(7)


def clipped(gradients: dict[str, Tensor], limit: float) -> dict[str, Tensor]:
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    return {name: gradient / max(1.0, (norm + 1e-6) / limit) for name, gradient in gradients.items()}


# ---- what each rank does


def main(folder: Path) -> None:
    import deepspeed.runtime.zero.muon.original_muon  # noqa: F401  # seconds, once instead of in every rank

    torch.set_num_threads(1)
    gc.freeze()
    fork = multiprocessing.get_context("fork")
    for ranks in RANKS:
        processes = [fork.Process(target=run_rank, args=(folder, rank, ranks)) for rank in range(ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            if process.exitcode:
                sys.exit(f"one of {ranks} ranks failed")


def run_rank(folder: Path, rank: int, ranks: int) -> None:
    import deepspeed
    import torch.distributed as dist

    die_with_parent()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ["LOCAL_SIZE"] = str(ranks)  # else DeepSpeed asks `numactl` at every step
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{ranks}", rank=rank, world_size=ranks)
    deepspeed.init_distributed("gloo", verbose=False)
    seen: dict[str, Any] = {name: followed(case) for name, case in CASES.items()}
    if ranks == 2:
        seen["adamw"] = bytes_of_adamw()
    if rank == 0:
        torch.save(seen, folder / f"{ranks}.pt")
    dist.barrier()
    os._exit(0)  # as torch tears gloo down, a rank may abort although all went well


def build(case: dict[str, Any], optimizer_class: Any = None) -> Any:
    import deepspeed
    import torch.distributed as dist

    from stiv_model.distributed.adafactor import Adafactor

    net = Net()
    if optimizer_class:
        optimizer = optimizer_class(net.parameters())
    else:
        optimizer = Adafactor(net.parameters(), RATE, beta1=0.9, beta2=0.999, weight_decay=DECAY)
    case = dict(case)
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    zero |= {key: case.pop(key) for key in ("stage", "offload_optimizer", "sub_group_size") if key in case}
    accumulation = case.get("gradient_accumulation_steps", 1)
    engine, *_ = deepspeed.initialize(
        model=net,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": BATCH // dist.get_world_size() // accumulation,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 1_000_000_000,
            "gradient_clipping": 0.0,  # the default is 1
            **case,
        },
    )
    if not optimizer_class:
        optimizer.bind(engine)
        optimizer.register_step_pre_hook(poison_padding)
    return engine


def poison_padding(optimizer: Any, *_: Any) -> None:
    """Put what uninitialised memory may hold behind the gradients of each parameter."""
    (shard,) = (shard for group in optimizer.param_groups for shard in group["params"])
    is_real = torch.zeros(shard.numel(), dtype=torch.bool)
    for piece in optimizer._pieces[shard]:
        piece.of(is_real)[:] = True
    shard.grad[~is_real] = math.nan


def backward(engine: Any, step: int) -> float:
    """Run all micro-batches of a step up to the update, and return the loss over all ranks."""
    import torch.distributed as dist

    accumulation = engine.gradient_accumulation_steps()
    own = [part.chunk(engine.world_size)[dist.get_rank()].chunk(accumulation) for part in batch(step)]
    total = torch.zeros(())
    for micro, (x, y) in enumerate(zip(*own, strict=True)):
        loss = mse_loss(engine(x.to(next(engine.module.parameters()).dtype)).float(), y)
        engine.backward(loss)
        total += loss.detach() / accumulation / engine.world_size
        if micro + 1 < accumulation:
            engine.step()
    dist.all_reduce(total)
    return total.item()


def whole(engine: Any) -> dict[str, Tensor]:
    from deepspeed.utils import safe_get_full_fp32_param

    return {name: safe_get_full_fp32_param(p).clone() for name, p in engine.module.named_parameters()}


def followed(case: dict[str, Any]) -> dict[str, Any]:
    """Train, and let the reference take each step from the same gradients."""
    from deepspeed.utils import safe_get_full_grad

    from stiv_model.distributed.adafactor import state_bytes
    from stiv_model.distributed.partitions import masters

    engine = build(case)
    reference, expected = Reference(), {name: weight.double() for name, weight in whole(engine).items()}
    losses = []
    for step in range(STEPS):
        losses.append(backward(engine, step))
        gradients = {name: safe_get_full_grad(p).float() for name, p in engine.module.named_parameters()}
        reference.step(expected, clipped(gradients, case.get("gradient_clipping", math.inf)))
        engine.step()
    end = {
        "weights": whole(engine),
        "expected": expected,
        "losses": losses,
        "second_moment": engine.optimizer.param_groups[0]["second_moment"],
        "shard": sum(master.numel() for master in masters(engine)),
        "bytes": state_bytes(engine.optimizer.optimizer),
    }
    engine.destroy()
    return end


def bytes_of_adamw() -> int:
    from stiv_model.distributed.adafactor import state_bytes

    engine = build({}, torch.optim.AdamW)
    backward(engine, 0)
    engine.step()
    size = state_bytes(engine.optimizer.optimizer)
    engine.destroy()
    return size


# ---- what is checked


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What the first rank of 1, 2 and 3 saw."""
    folder = tmp_path_factory.mktemp("adafactor")
    root = Path(__file__).parents[3]
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return {ranks: torch.load(folder / f"{ranks}.pt") for ranks in RANKS}


def assert_close(weights: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert (weight - expected[name]).abs().max() <= tolerance, name


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", RANKS)
def test_a_shard_steps_as_the_whole_tensors_of_the_reference(seen, ranks, case):
    assert_close(seen[ranks][case]["weights"], seen[ranks][case]["expected"])
    assert seen[ranks][case]["losses"][-1] < 0.5 * seen[ranks][case]["losses"][0]


@pytest.mark.long
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("case", ["float32", "accumulated and clipped"])
def test_any_number_of_ranks_learns_what_one_plain_process_learns(seen, ranks, case):
    net, reference = Net().double(), Reference()
    weights = {name: parameter.data for name, parameter in net.named_parameters()}
    for step in range(STEPS):
        x, y = (part.double() for part in batch(step))
        gradients = torch.autograd.grad(mse_loss(net(x), y), list(net.parameters()))
        limit = CASES[case].get("gradient_clipping", math.inf)
        reference.step(weights, clipped(dict(zip(weights, gradients, strict=True)), limit))
    assert_close(seen[ranks][case]["weights"], weights)


@pytest.mark.long
@pytest.mark.parametrize("ranks", RANKS)
def test_the_second_moment_is_one_number_per_row_and_column_whatever_the_ranks(seen, ranks):
    sizes = {name: len(moment) for name, moment in seen[ranks]["float32"]["second_moment"].items()}
    assert sizes == {name: len(parameter) + parameter[0].numel() for name, parameter in Net().named_parameters()}
    assert_close(seen[ranks]["float32"]["second_moment"], seen[1]["float32"]["second_moment"])


@pytest.mark.long
@pytest.mark.parametrize("ranks", RANKS)
def test_the_state_is_four_bytes_per_parameter_and_the_factors(seen, ranks):
    factors = sum(len(parameter) + parameter[0].numel() for parameter in Net().parameters())
    assert seen[ranks]["float32"]["bytes"] == 4 * (seen[ranks]["float32"]["shard"] + factors)


@pytest.mark.long
def test_adamw_keeps_eight_bytes_per_parameter(seen):
    assert seen[2]["adamw"] == pytest.approx(8 * seen[2]["float32"]["shard"], rel=0.01)


def test_the_reference_is_the_adafactor_of_torch_where_both_say_the_same():
    """Without momentum, clipping and scaling by the weights; torch's decay is a power of the step, so it is bent."""
    torch.manual_seed(0)
    start = {"matrix": torch.rand(4, 6), "vector": torch.rand(5)}
    expected = {name: nn.Parameter(weight.clone()) for name, weight in start.items()}
    torchs = torch.optim.Adafactor(expected.values(), lr=RATE, eps=(1e-15, 1.0), d=math.inf, weight_decay=DECAY)
    torchs.state[expected["matrix"]] = {
        "step": torch.tensor(1.0),
        "row_var": torch.zeros(4, 1),
        "col_var": torch.zeros(1, 6),
    }
    torchs.state[expected["vector"]] = {"step": torch.tensor(1.0), "variance": torch.zeros(5)}
    reference = Reference(beta1=0.0)
    for step in range(STEPS):
        gradients = {name: torch.randn_like(weight) for name, weight in start.items()}
        for name, parameter in expected.items():
            parameter.grad = gradients[name]
        torchs.param_groups[0]["beta2_decay"] = math.log(1 - reference.beta2) / math.log(step + 2)
        torchs.step()
        reference.step(start, gradients)
    assert_close(start, {name: parameter.detach() for name, parameter in expected.items()}, tolerance=2e-6)


def test_a_step_before_bind_is_refused():
    from stiv_model.distributed.adafactor import Adafactor

    optimizer = Adafactor([nn.Parameter(torch.ones(3))], RATE, beta1=0.9, beta2=0.999)
    with pytest.raises(RuntimeError, match="bind"):
        optimizer.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
