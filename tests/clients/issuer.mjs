// An OpenID provider that is certified, with what Entra adds to its tokens.
//
//     node issuer.mjs TENANT AUDIENCE
//
// It is looked for in the folder that TOLLGATE_TEST_NODE_MODULES names. Its first line says where it listens; it
// runs until its standard input ends. The applications `client-1` and `client-2` have the secret `hush`; the second one
// has the role Tollgate.Admin. Tokens are for the `resource` that is asked for.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = process.env.TOLLGATE_TEST_NODE_MODULES;
if (!modules) throw new Error("TOLLGATE_TEST_NODE_MODULES must name a node_modules folder with oidc-provider in it");
const require = createRequire(join(modules, "from-here.js"));
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const [tenant, audience] = process.argv.slice(2);
let answer;
const server = createServer((request, response) => answer(request, response));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const authority = `http://127.0.0.1:${server.address().port}`;

const key = (kid) => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "RS256" };
};
const client = (client_id) => ({
  client_id,
  client_secret: "hush",
  grant_types: ["client_credentials"],
  redirect_uris: [],
  response_types: [],
});
const provider = new Provider(`${authority}/${tenant}/v2.0`, {
  clients: [client("client-1"), client("client-2")],
  jwks: { keys: [key("one"), key("two")] },
  routes: { jwks: `/${tenant}/discovery/v2.0/keys`, token: `/${tenant}/oauth2/v2.0/token` },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: () => ({ scope: "", accessTokenFormat: "jwt", accessTokenTTL: 600 }),
    },
  },
  extraTokenClaims: (_, token) => ({
    tid: tenant,
    ver: "2.0",
    azp: token.clientId,
    oid: `principal-of-${token.clientId}`,
    nbf: Math.floor(Date.now() / 1000),
    ...(token.clientId === "client-2" ? { roles: ["Tollgate.Admin"] } : {}),
  }),
});
answer = provider.callback();
console.log(JSON.stringify({ authority, token: `${authority}/${tenant}/oauth2/v2.0/token`, audience }));
process.stdin.resume().on("end", () => process.exit(0));
