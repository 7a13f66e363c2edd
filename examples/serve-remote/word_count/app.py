"""Counts words: every part of a text in a Ray task, wherever there is room, and adds up what they found.

curl 'http://HEAD:8123/count?text=one+two+two&parts=2'
"""

# flagscale-deploy: with-folder

import http.server
import json
import socket
import urllib.parse

from words import count_words, split_evenly  # it lies beside this file

from flagscale_deploy import serve


@serve.remote(name="count", num_cpus=0.1)
def count(part):
    return {"hosts": [socket.gethostname()], "words": count_words(part)}


@serve.remote(name="add", num_cpus=0.1)
def add(*counts):
    words = sum((count["words"] for count in counts), start=count_words(""))
    return {"hosts": sorted({host for count in counts for host in count["hosts"]}), "words": dict(words)}


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if url.path != "/count":
            return self.answer(200 if url.path == "/health" else 404, {})
        parts = split_evenly(asked.get("text", ""), int(asked.get("parts", 4)))
        return self.answer(200, serve.run(add.remote(*[count.remote(part) for part in parts])))

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


def main():
    serve.init()
    port = serve.task_config.serve.deploy.port
    print(f"counting words at port {port}")
    http.server.ThreadingHTTPServer(("", port), Answer).serve_forever()


if __name__ == "__main__":
    main()
