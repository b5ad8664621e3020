// Pages through, searches, makes and misses contacts with HubSpot's client, through whatever base URL it is given.
//
// The base URL and the key are all that differs from a program that uses HubSpot itself.
import { Client } from "@hubspot/api-client";
import { baseUrl, key, run } from "./sdksteps.mjs";

const client = new Client({ accessToken: key, basePath: baseUrl });
const emails = (contacts) => contacts.map((contact) => contact.properties.email);

await run(
  {
    all: async () => emails(await client.crm.contacts.getAll(2, undefined, ["email"])),
    async next() {
      const { paging } = await client.crm.contacts.basicApi.getPage(2);
      const page = await fetch(paging.next.link, { headers: { Authorization: `Bearer ${key}` } });
      return { link: paging.next.link, status: page.status, emails: page.ok ? emails((await page.json()).results) : [] };
    },
    async found() {
      const filters = [{ propertyName: "email", operator: "EQ", value: "ada@acme.example" }];
      const { total, results } = await client.crm.contacts.searchApi.doSearch({ filterGroups: [{ filters }], properties: ["email"], limit: 2 });
      return { total, emails: emails(results) };
    },
    async created() {
      const { id, properties } = await client.crm.contacts.basicApi.create({ properties: { email: "new@acme.example" } });
      return { id, email: properties.email };
    },
    missing: () => client.crm.contacts.basicApi.getById("404", ["email"]),
  },
  (err) => ({ code: err.code, category: err.body?.category, request: err.body?.correlationId }),
);
