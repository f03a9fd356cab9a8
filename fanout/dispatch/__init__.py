"""From batches of the ledger to providers and back: pure rules, lanes, and the sender that drives them."""

import sys

# httpx loads its own command line, with click, pygments and rich, where these are installed: a fifth of a second of
# processor for each sender, between a crash and the next message. Nobody runs that command in here.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
