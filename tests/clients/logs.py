"""Azure's own library for the Logs Ingestion API, as an app with a managed identity uses it.

Arguments: the endpoint, the rule's immutable id, the stream, and how many rows to send. Prints what came of it as JSON.
"""

import json
import sys

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential
from azure.monitor.ingestion import LogsIngestionClient


class Plain(RequestsTransport):
    """Speaks plain HTTP where the library believes it speaks TLS: what stands in for Azure has no certificate."""

    def send(self, request, **kwargs):
        url = request.url
        request.url = url.replace("https://", "http://", 1)
        try:
            return super().send(request, **kwargs)
        finally:
            request.url = url


endpoint, rule, stream, count = sys.argv[1:]
client = LogsIngestionClient(
    endpoint.replace("http://", "https://", 1), ManagedIdentityCredential(), transport=Plain(), retry_total=0
)
# Few and large: the library cuts its calls without counting what stands between the rows.
rows = [{"EventId": f"{number:08}", "Model": "x" * 60_000} for number in range(int(count))]
said = {"error": None}
try:
    client.upload(rule_id=rule, stream_name=stream, logs=rows)
except HttpResponseError as error:
    said["error"] = [error.status_code, error.error.code if error.error else None]
print(json.dumps(said))
