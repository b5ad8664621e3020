// Lists users with the Microsoft Graph JavaScript client, through whatever the argument {"base_url", "key"} names, and tells
// what came as one line of JSON.
//
// The base URL and the key are all that differs from a program that uses Microsoft Graph itself; customHosts belongs to the
// base URL, because the client sends its key only to the hosts that it lists, and only over https.
import { Client } from "@microsoft/microsoft-graph-client";

const { base_url: baseUrl, key } = JSON.parse(process.argv[2]);
const client = Client.initWithMiddleware({
  baseUrl,
  customHosts: new Set([new URL(baseUrl).hostname]),
  authProvider: { getAccessToken: async () => key },
});

const tell = (event, members) => process.stdout.write(JSON.stringify({ event, ...members }) + "\n");
try {
  const users = await client.api("/users").get();
  const some = await client.api("/users").select(["id", "displayName"]).top(2).expand("manager($select=id)").filter("startsWith(displayName,'A')").get();
  const one = await client.api("/users/acme-1").get();
  const made = await client.api("/users").post({ displayName: "Ada" });
  tell("listed", { users, some, one, made });
  await client.api("/users/nobody").get();
} catch (err) {
  tell("failed", { status: err.statusCode, code: err.code, message: err.message });
}
