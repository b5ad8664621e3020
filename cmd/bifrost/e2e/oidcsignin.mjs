// A certified OpenID provider where people sign in, on loopback: whoever writes the name of an account is taken for it. Addresses
// and groups are told by the userinfo endpoint, as the standard has it for the authorization code flow.
//
// The argument is {"accounts": {NAME: claims}}. Events go to standard output as lines of JSON. Commands come by lines on standard
// input: {"register": {"id", "secret", "redirect_uri"}} makes a client known, {"forget": true} ends everybody's session.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Provider from "oidc-provider";

const { accounts } = JSON.parse(process.argv[2]);
const tell = (event, members = {}) => process.stdout.write(JSON.stringify({ event, ...members }) + "\n");

const server = createServer();
await new Promise((bound) => server.listen(0, "127.0.0.1", bound));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  scopes: ["openid", "email", "groups"],
  claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
  pkce: { required: () => true },
  ttl: { AccessToken: 60, Grant: 3600, Session: 3600, Interaction: 600, AuthorizationCode: 60, IdToken: 600 },
  findAccount: (_, name) => (accounts[name] ? { accountId: name, claims: () => ({ sub: name, ...accounts[name] }) } : undefined),
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});

const form = `<!doctype html><html lang="en"><title>Test provider</title><body style="font: 16px system-ui; margin: 3rem">
<h1>Test provider</h1><form method="post"><p><label>Account <input name="account" autofocus></label></p>
<button name="do" value="next">Next</button> <button name="do" value="cancel">Cancel</button></form>`;

// interact asks who comes, and takes every consent for given.
async function interact(req, res) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(req, res);
  if (prompt.name === "consent") {
    const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    return provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
  }
  if (req.method !== "POST") {
    tell("asked", { prompt: params.prompt });
    res.writeHead(200, { "Content-Type": "text/html; charset=utf-8" });
    return res.end(form);
  }
  let body = "";
  for await (const part of req) {
    body += part;
  }
  const sent = new URLSearchParams(body);
  if (sent.get("do") === "cancel") {
    return provider.interactionFinished(req, res, { error: "access_denied", error_description: "CANARY-description" });
  }
  return provider.interactionFinished(req, res, { login: { accountId: sent.get("account") } });
}

let sessions = [];
provider.on("session.saved", (session) => sessions.push(session));
provider.on("grant.success", (ctx) => tell("exchanged", { client: ctx.oidc.client.clientId }));
provider.on("grant.error", (_, err) => tell("error", { message: err.error_description ?? err.message }));
provider.on("server_error", (_, err) => tell("error", { message: err.stack }));

const pages = provider.callback();
server.on("request", (req, res) => {
  if (req.url === "/favicon.ico") {
    return res.writeHead(204).end();
  }
  if (!req.url.startsWith("/interaction/")) {
    return pages(req, res);
  }
  interact(req, res).catch((err) => {
    tell("error", { message: err.stack });
    res.writeHead(500).end();
  });
});

// Standard input ends with the test, and the server with it.
const commands = createInterface({ input: process.stdin });
commands.on("line", async (line) => {
  const command = JSON.parse(line);
  if (command.register) {
    const { id, secret, redirect_uri } = command.register;
    await provider.Client.adapter.upsert(id, {
      client_id: id, client_secret: secret, redirect_uris: [redirect_uri], grant_types: ["authorization_code"], response_types: ["code"],
    });
    tell("registered", { client: id });
  }
  if (command.forget) {
    await Promise.all(sessions.map((session) => session.destroy()));
    sessions = [];
    tell("forgotten", { round: command.forget });
  }
});
commands.on("close", () => process.exit(0));

tell("listening", { issuer });
