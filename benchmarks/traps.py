"""Files named .mp4 that would have a careless reader open other files or sockets, or fill the memory; and watches.

Each trap points at a canary: a file that a `Watch` observes, and a port of loopback on which a `Listener` counts.
"""

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

_OPENED = 0x1 | 0x2 | 0x20  # IN_ACCESS, IN_MODIFY, IN_OPEN of inotify(7)


class Watch:
    """Tell whether a file was opened, by anyone, inside the block; `count` is how often.

    Raises:
        OSError: the kernel has no inotify left to give.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.count = 0

    def __enter__(self) -> Self:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(self._file), _OPENED) < 0:
            raise OSError(ctypes.get_errno(), f"inotify: {os.strerror(ctypes.get_errno())}")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.count = len(os.read(self._descriptor, 1 << 16)) // struct.calcsize("iIII")
        except BlockingIOError:
            self.count = 0
        os.close(self._descriptor)


class Listener:
    """Count the connections made to a port of loopback inside the block."""

    def __enter__(self) -> Self:
        self.count = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if connection.recv(4) == b"stop":
                    return
                self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"stop")
        self._thread.join()
        self._socket.close()


def texts(canary: Path, port: int) -> dict[str, str]:
    """Return, by name, texts that FFmpeg can take for a video that lies elsewhere.

    Args:
        canary: in a folder beside the files that will have these texts.
        port: of loopback.
    """
    beside = f"{canary.parent.name}/{canary.name}"
    address = f"http://127.0.0.1:{port}/canary.ts"
    play = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n"
    return {
        "m3u8_file": f"{play}#EXTINF:2,\n{canary}\n#EXT-X-ENDLIST\n",
        "m3u8_http": f"{play}#EXTINF:2,\n{address}\n#EXT-X-ENDLIST\n",
        "m3u8_key": f'{play}#EXT-X-KEY:METHOD=AES-128,URI="{address}"\n#EXTINF:2,\n{canary}\n#EXT-X-ENDLIST\n',
        "m3u8_concat": f"{play}#EXTINF:2,\nconcat:{canary}|{address}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile {beside}\n",
        "ffconcat_absolute": f"ffconcat version 1.0\nfile '{canary}'\n",
        "ffconcat_http": f"ffconcat version 1.0\nfile {address}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45000 RTP/AVP 96\n"
        "a=rtpmap:96 AV1/90000\n",
        "mpd": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation id="0" bandwidth="1">'
        f"<BaseURL>{address}</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
        "image_pattern": f"{canary.parent}/%03d.png\n",
        "reference": f"RTSPtext\n{address}\n",
    }


def playlist_after_header(canary: Path, port: int) -> bytes:
    """Return a playlist behind the first bytes of an mp4."""
    return b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2\n" + texts(canary, port)["m3u8_http"].encode()


def big_picture(path: Path, pixels: int) -> None:
    """Write a video of one flat PNG picture, pixels x pixels: a few hundred kB that decode to much more."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = pixels
        stream.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((pixels, pixels), np.uint8), format="gray")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def many_frames(path: Path, frames: int, pixels: int = 1024) -> None:
    """Write a still picture as MPEG-4 of so many frames: a hundred bytes each that decode to 1.5 MB."""
    picture = av.VideoFrame.from_ndarray(np.full((pixels, pixels, 3), 90, np.uint8), format="rgb24").reformat(
        format="yuv420p"
    )
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = pixels
        stream.pix_fmt = "yuv420p"
        still = []
        for index in range(2):
            picture.pts = index
            still += stream.encode(picture)
        for index in range(frames):
            packet = av.Packet(bytes(still[min(index, len(still) - 1)]))
            packet.pts = packet.dts = index
            packet.duration, packet.stream, packet.time_base = 1, stream, stream.codec_context.time_base
            container.mux(packet)


def black_frames(path: Path, frames: int, pixels: int = 1024) -> None:
    """Write black H.264 of so many frames: a dozen bytes each that decode to 1.5 MB."""
    picture = av.VideoFrame(pixels, pixels, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes(plane.buffer_size))
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "tune": "stillimage"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = pixels
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def small_claim(path: Path, pixels: int) -> None:
    """Write an H.264 video of pixels x pixels whose container says that it is 64 x 64."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = pixels
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(pixels, pixels, "yuv420p")))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    header, entry = content.index(b"tkhd") + 80, content.index(b"avc1") + 28  # ISO/IEC 14496-12, 8.3.2 and 12.1.3
    content[header : header + 8] = struct.pack(">II", 64 << 16, 64 << 16)
    content[entry : entry + 4] = struct.pack(">HH", 64, 64)
    path.write_bytes(content)


NAMES = (
    *("new\nline.mp4", "tab\there.mp4", "return\rhere.mp4", "escape\x1b[31mred.mp4", "bell\x07.mp4", "delete\x7f.mp4"),
    *("-i.mp4", "--version.mp4", "-.mp4", "-f lavfi.mp4", "-vf movie=x.mp4", "--out=x.mp4"),
    *("concat:a|b.mp4", "file:a.mp4", "http:x.mp4", "data:,x.mp4", "crypto:a.mp4", "subfile,,start,0,end,9,,:a.mp4"),
    *("pipe:0.mp4", "pipe:.mp4", "tee:a|b.mp4", "async:file:a.mp4", "cache:a.mp4", "s3:x.mp4", "tcp:1.mp4", "fd:0.mp4"),
    *("%03d.mp4", "%s%n.mp4", "%2e%2e%2fx.mp4", "*.mp4", "?.mp4", "[a-z].mp4", "{a,b}.mp4", "~.mp4", "~root.mp4"),
    *(
        "a..mp4",
        "a...mp4",
        "a .. .mp4",
        "a\\..\\..\\x.mp4",
        "C:\\x.mp4",
        "$HOME.mp4",
        "$(touch reached).mp4",
        "`touch reached`.mp4",
    ),
    *("; touch reached;.mp4", "| touch reached.mp4", "& touch reached &.mp4", "> reached.mp4", "a' b.mp4", 'a" b.mp4'),
    *(
        " leading.mp4",
        "trailing .mp4",
        "a  b.mp4",
        "#hash.mp4",
        "!bang.mp4",
        "\\.mp4",
        "\N{RIGHT-TO-LEFT OVERRIDE}4pm.mp4",
    ),
    *(
        "e\u0301.mp4",
        "\u00e9.mp4",
        "\N{ZERO WIDTH SPACE}.mp4",
        "\U0001f3ac.mp4",
        "x" * 251 + ".mp4",
        "\udcff\udcfe.mp4",
    ),
    *("name.mp4.MP4", "null.mp4", "con.mp4", "=1+1.mp4", "<script>alert(1)</script>.mp4".replace("/", "\u2215")),
)
"""File names that a shell, a format string, FFmpeg, a terminal or a spreadsheet would take for something else."""
