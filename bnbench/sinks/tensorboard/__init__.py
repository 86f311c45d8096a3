"""TensorBoard's view of a run, written without torch and without TensorFlow.

`sink`: events → scalars, images and the end of a session. `card`: what is known before the first
event, and the file that holds it. `hparams`: the HParams tab. `layout`: the Custom Scalars tab.
`pictures`: the Images tab. `records`: protocol buffers and files. All take plain data; the files
can be written anew from a run's folder at any time.
"""

from bnbench.sinks.tensorboard.card import Card, header
from bnbench.sinks.tensorboard.hparams import METRICS, Column, columns
from bnbench.sinks.tensorboard.layout import BANDS, BY_BATCH_SIZE, Band, layout
from bnbench.sinks.tensorboard.pictures import confusion_matrix, first_images
from bnbench.sinks.tensorboard.records import encoded, is_whole, record, scalars, text, version
from bnbench.sinks.tensorboard.sink import POINTS, TensorBoardSink, readings

__all__ = [
    "BANDS",
    "BY_BATCH_SIZE",
    "METRICS",
    "POINTS",
    "Band",
    "Card",
    "Column",
    "TensorBoardSink",
    "columns",
    "confusion_matrix",
    "encoded",
    "first_images",
    "header",
    "is_whole",
    "layout",
    "readings",
    "record",
    "scalars",
    "text",
    "version",
]
