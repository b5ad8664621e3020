// Lists, pages through, makes and misses users with the Microsoft Graph JavaScript client, through whatever base URL it is given.
//
// The base URL and the key are all that differs from a program that uses Microsoft Graph itself; customHosts belongs to the
// base URL, because the client sends its key only to the hosts that it lists, and only over https.
import { Client, PageIterator } from "@microsoft/microsoft-graph-client";
import { baseUrl, key, run } from "./sdksteps.mjs";

const client = Client.initWithMiddleware({
  baseUrl,
  customHosts: new Set([new URL(baseUrl).hostname]),
  authProvider: { getAccessToken: async () => key },
});

await run(
  {
    users: () => client.api("/users").get(),
    some: () => client.api("/users").select(["id", "displayName"]).top(2).expand("manager($select=id)").filter("startsWith(displayName,'A')").get(),
    one: () => client.api("/users/acme-1").get(),
    made: () => client.api("/users").post({ displayName: "Ada" }),
    nobody: () => client.api("/users/nobody").get(),
    async pages() {
      const users = [];
      const pages = new PageIterator(client, await client.api("/users").get(), (user) => users.push(user) > 0);
      await pages.iterate();
      const letters = users.reduce((sum, user) => sum + user.displayName.length, 0);
      return { users: new Set(users.map((user) => user.id)).size, letters, complete: pages.isComplete() };
    },
    async changes() {
      const pages = new PageIterator(client, await client.api("/users/delta").get(), () => true);
      await pages.iterate();
      return client.api(pages.getDeltaLink()).get();
    },
  },
  (err) => ({ status: err.statusCode, code: err.code }),
);
