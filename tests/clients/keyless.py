"""Azure's own libraries for Python, as an app with a managed identity uses them.

Arguments: the vault's address, the name of a secret, the audience of a token, and the client id of a
user-assigned identity, if that is the one. Prints the token and the secret as JSON.
"""

import json
import sys

from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient


class Plain(RequestsTransport):
    """Speaks plain HTTP where the library believes it speaks TLS: what stands in for a vault has no certificate."""

    def send(self, request, **kwargs):
        url = request.url
        request.url = url.replace("https://", "http://", 1)
        try:
            return super().send(request, **kwargs)
        finally:
            request.url = url


vault, name, audience, *client_id = sys.argv[1:]
credential = ManagedIdentityCredential(client_id=client_id[0] if client_id else None)
token = credential.get_token(f"{audience}/.default")
client = SecretClient(
    vault.replace("http://", "https://", 1), credential, transport=Plain(), verify_challenge_resource=False
)
secret = client.get_secret(name)
print(json.dumps({"token": token.token, "value": secret.value, "version": secret.properties.version}))
