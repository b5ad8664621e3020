// A certified OAuth server for the tests, on loopback: it requires PKCE, rotates every refresh token and revokes the grant when
// one is used twice, sends `iss` to the callback, and forgets an access token after a few seconds. Whoever comes is signed in
// as alice, who consents to everything.
//
// The argument is {"lifetime"}, of access tokens in seconds. Events go to standard output as lines of JSON, in which refresh
// tokens are hashes. Commands come by lines on standard input: {"register": {"id", "secret", "auth", "redirect_uri"}} makes a
// client known, {"revoke": CLIENT_ID} ends its grants.
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const { lifetime } = JSON.parse(process.argv[2]);
const tell = (event, members = {}) => process.stdout.write(JSON.stringify({ event, ...members }) + "\n");
const hash = (token) => token && createHash("sha256").update(token).digest("hex").slice(0, 16);

const server = createServer();
await new Promise((bound) => server.listen(0, "127.0.0.1", bound));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  scopes: ["openid", "offline_access"],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: lifetime, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, AuthorizationCode: 60, IdToken: 600 },
  findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
  features: {
    devInteractions: { enabled: false },
    revocation: { enabled: true, allowedPolicy: (_, client, token) => token.clientId === client.clientId },
    introspection: { enabled: true, allowedPolicy: (_, client) => client.clientId === "api-client" },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});

// interact answers the prompt that the provider has sent the browser here for, and sends the browser back.
async function interact(req, res) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  if (prompt.name === "login") {
    return provider.interactionFinished(req, res, { login: { accountId: "alice" } });
  }
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

const grants = new Map(); // by client id: the grants that were made
const about = (ctx) => ({
  client: ctx.oidc?.client?.clientId,
  grant_type: ctx.oidc?.params?.grant_type,
  refresh_token: hash(ctx.oidc?.params?.refresh_token),
});
provider.on("grant.success", (ctx) => {
  const client = ctx.oidc.client.clientId;
  grants.set(client, (grants.get(client) ?? new Set()).add(ctx.oidc.entities.Grant.jti));
  tell("grant.success", about(ctx));
});
provider.on("grant.error", (ctx, err) => tell("grant.error", { ...about(ctx), error: err.error }));
provider.on("grant.revoked", (ctx, grantId) => tell("grant.revoked", { ...about(ctx), grant: hash(grantId) }));
provider.on("server_error", (_, err) => tell("error", { message: err.stack }));
provider.on("authorization.error", (_, err) => tell("error", { message: err.error_description ?? err.message }));

const pages = provider.callback();
server.on("request", (req, res) => {
  if (!req.url.startsWith("/interaction/")) {
    return pages(req, res);
  }
  interact(req, res).catch((err) => {
    tell("error", { message: err.stack });
    res.writeHead(500).end();
  });
});

const register = (client) =>
  provider.Client.adapter.upsert(client.id, {
    client_id: client.id,
    client_secret: client.secret,
    token_endpoint_auth_method: client.auth,
    redirect_uris: [client.redirect_uri],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
  });

async function revoke(client) {
  for (const grantId of grants.get(client) ?? []) {
    await provider.RefreshToken.revokeByGrantId(grantId);
    await (await provider.Grant.find(grantId))?.destroy();
  }
}

// Standard input ends with the test, and the server with it.
const commands = createInterface({ input: process.stdin });
commands.on("line", async (line) => {
  const command = JSON.parse(line);
  if (command.register) {
    await register(command.register);
    tell("registered", { client: command.register.id });
  }
  if (command.revoke) {
    await revoke(command.revoke);
    tell("revoked", { client: command.revoke });
  }
});
commands.on("close", () => process.exit(0));

tell("listening", { issuer });
