import pytest
import torch

from stiv_model.encoders import devices
from stiv_model.encoders.devices import Pending


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_place_and_remedy():
    with pytest.raises(ValueError, match=r"^devices\.encoders is cuda, .*no GPU here: set it to cpu.*stiv doctor"):
        devices.check("cuda", "devices.encoders")


def test_the_cpu_is_always_there():
    assert devices.check("cpu", "devices.encoders") == torch.device("cpu")


def test_what_is_sent_to_the_cpu_and_back_is_neither_changed_nor_copied_in_vain():
    x = torch.arange(6.0).reshape(2, 3)
    sent = devices.send(x, torch.device("cpu"))
    assert sent.data_ptr() == Pending(sent).result().data_ptr() == x.data_ptr()
    torch.testing.assert_close(Pending(x.T).result(), x.T, rtol=0, atol=0)
    assert Pending(x.T).result().is_contiguous()


def test_what_is_sent_is_on_the_device_and_what_is_fetched_is_fetched_from_there():
    sent = devices.send(torch.zeros(2, 3), torch.device("meta"))
    assert (sent.device.type, sent.shape) == ("meta", (2, 3))
    with pytest.raises(NotImplementedError, match="meta"):  # which has no values
        Pending(sent)


def test_convolutions_keep_the_settings_that_others_made():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    seen = []
    for dtype in (torch.float32, torch.bfloat16):
        with devices.repeatable(torch.device("cuda"), dtype):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
    assert seen == [(False, True), (True, True)]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_back_what_it_was_sent():
    x = torch.rand(100, 100)
    sent = devices.send(x, torch.device("cuda"))
    assert sent.is_cuda
    fetched = Pending(sent).result()
    assert torch.equal(fetched, x) and not fetched.is_pinned()
