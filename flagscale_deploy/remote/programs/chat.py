"""Sends a chat completion to an instance on this host.

main({deployment, host, server: its name, messages, parameters}) answers {"answer": the server's JSON} or
{"problem": text}.
"""

import http.client
import json
from typing import Any, Dict, Optional, Tuple

from flagscale_deploy.remote.deployment import record
from flagscale_deploy.remote.engine import openai, program
from flagscale_deploy.remote.wire import say

ANSWER_SECONDS = 590.0


def served_by(server: Dict[str, Any], key: Optional[str]) -> Tuple[str, str]:
    """URL and model of a server; of a program of the user's own what it says itself, if it speaks the OpenAI API."""
    if server.get("engine") != "program":
        return server["local_url"], server["served_name"]
    url, why = program.answers(server["addresses"], key)
    if url is None:
        raise OSError(why or "it is a program of your own, and has no port (deploy.port)")
    try:
        return url, json.loads(openai.request(url + "/v1/models", key=key)[1])["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise OSError("it is a program of your own, at %s, and has no /v1/models" % url) from None


def main(args: Dict[str, Any]) -> None:
    known = record.read(args["deployment"], args["host"]) or {}
    servers = known.get("instances", []) + known.get("routers", [])
    found = [each for each in servers if each["name"] == args["server"]]
    if not found:
        say(problem="it is not recorded on this host")
        return
    key = openai.api_key(args["deployment"], args["host"])
    try:
        url, model = served_by(found[0], key)
        body = dict(args["parameters"], model=model, messages=args["messages"])
        status, text = openai.request(url + "/v1/chat/completions", body, key, ANSWER_SECONDS)
    except OSError as error:
        say(problem="no answer: %s" % error)
        return
    if status != 200:
        say(problem="HTTP %d: %s" % (status, text[:2000] or http.client.responses.get(status, "nothing more")))
        return
    try:
        say(answer=json.loads(text))
    except ValueError:
        say(problem="HTTP 200, but no JSON: %s" % text[:2000])
