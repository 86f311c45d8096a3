"""TensorBoard's view of a run, written without torch and without TensorFlow.

`sink`: facts → scalars, images and the end of a session. `tabs`: the HParams tab and the Custom
Scalars tab. `records`: pictures, protocol buffers and files. All take plain data; the files can be
rewritten from a run's folder at any time.
"""
