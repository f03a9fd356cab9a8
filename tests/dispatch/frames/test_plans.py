"""What a batch has in common, made ready: whoever made its columns, the kernels that write it are the warm ones."""

from __future__ import annotations

import numpy as np
import pytest

from fanout.channels.protocol import Column, Requests, Template, column
from fanout.dispatch.frames import kernels
from tests.dispatch.frames.peer import ORIGIN, Peer

ADDRESSES = (b"token-of-anna", b"token-of-bert")


def addresses(data: bool, offsets: bool) -> Column:
    """Two addresses, as they come from a file or a registry: each part may be written to, or not."""
    made = column(ADDRESSES)
    result = Column(made.data.copy(), made.offsets.copy())
    result.data.flags.writeable, result.offsets.flags.writeable = data, offsets
    return result


@pytest.mark.parametrize("columns", [0, 1, 2])
@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("offsets", [False, True])
def test_nothing_is_compiled_for_a_first_row(columns: int, data: bool, offsets: bool) -> None:
    kernels.warm()
    warm = list(kernels.write_rows.signatures)
    holes = tuple(range(columns))
    template = Template(method="POST", url=(ORIGIN.encode() + b"/send",), headers=(), body=(b"to ", *holes))
    requests = Requests(
        templates=(template,),
        columns=tuple(addresses(data, offsets) for _ in holes),
        which=np.zeros(2, np.intp),
        usable=np.ones(2, np.bool_),
    )
    peer = Peer(1)
    peer.exchange()
    assert peer.write(requests, [0, 1]) == []
    peer.exchange()
    assert [bytes(body) for _, body in peer.requests.values()] == [b"to " + one * columns for one in ADDRESSES]
    assert list(kernels.write_rows.signatures) == warm
