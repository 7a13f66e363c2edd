"""Sends a chat completion to an instance on this host.

main({deployment, host, server: its name, messages, parameters}) answers {"answer": the server's JSON} or
{"problem": text}.
"""

import json
from typing import Any, Dict

from flagscale_deploy.remote import openai, record
from flagscale_deploy.remote.wire import say

ANSWER_SECONDS = 590.0


def main(args: Dict[str, Any]) -> None:
    known = record.read(args["deployment"], args["host"]) or {}
    servers = known.get("instances", []) + known.get("routers", [])
    found = [each for each in servers if each["name"] == args["server"]]
    if not found:
        say(problem="it is not recorded on this host")
        return
    body = dict(args["parameters"], model=found[0]["served_name"], messages=args["messages"])
    key = openai.api_key(args["deployment"], args["host"])
    try:
        status, text = openai.request(found[0]["local_url"] + "/v1/chat/completions", body, key, ANSWER_SECONDS)
        answer = json.loads(text)
    except (OSError, ValueError) as error:
        say(problem="no answer: %s" % error)
        return
    if status == 200:
        say(answer=answer)
    else:
        say(problem="HTTP %d: %s" % (status, text[:2000]))
