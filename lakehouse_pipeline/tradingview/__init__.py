"""TradingView's websocket protocol without sockets: text in, events out, time as an argument.

::

    frames           the envelope ~m~LENGTH~m~PAYLOAD
    messages         the typed events, and the typed errors refusals stand for
    parsing          one payload to one event
    protocol         the client half: verbs to texts, texts to events
    server_protocol  the server half, which the feed server speaks
    state            partial quotes merged into one snapshot a symbol
    client           the asyncio shell: the only module here that opens a socket
"""
