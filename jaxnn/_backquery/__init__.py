"""Back queries: from requested outputs of a network to an input.

`_query.py` holds the public function. The layers of a `Network` are inverted one by one in `_layerwise.py`; a
prior over inputs (`jaxnn.prior`) gives the best linear estimate in `_pattern.py`, and the most typical input
that meets the request in `_typical.py`.
"""

from jaxnn._backquery._query import backquery as backquery
from jaxnn._backquery._typical import TypicalInput as TypicalInput
