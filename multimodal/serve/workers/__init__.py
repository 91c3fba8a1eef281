"""Several processes that answer the requests of one port, from one index.

1. ``supervisor`` has the port and the index: it starts the workers, and starts one again that has ended.
2. ``process`` is a worker: the application of ``multimodal.serve.app``, with a model of its own.
3. ``host`` lets the workers search and change the index, over a Unix domain socket that only this user can open;
   ``remote_engine`` is what a worker has in the place of the engine. ``messages`` is what goes over the socket.
4. ``sent_queries`` and ``metrics`` bring together what the workers have counted and recorded.
"""
