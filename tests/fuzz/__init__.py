"""The transport under any bytes a server can send, cut anywhere: is each answer the answer to its own request?"""
