// Posts, lists, waits and uploads with Slack's WebClient, through whatever base URL it is given.
//
// The base URL and the key are all that differs from a program that uses Slack itself.
import { WebClient } from "@slack/web-api";
import { baseUrl, key, run } from "./sdksteps.mjs";

const client = new WebClient(key, { slackApiUrl: baseUrl });

await run(
  {
    async posted() {
      const blocks = [{ type: "section", text: { type: "mrkdwn", text: "*Lift-off* & <https://acme.example|more>" } }];
      const { channel, message, response_metadata: about } = await client.chat.postMessage({ channel: "C1", text: "Lift-off = 100 % ☂", blocks });
      return { channel, message, scopes: about.scopes };
    },
    async members() {
      const names = [];
      for await (const page of client.paginate("users.list", { limit: 2 })) {
        names.push(...page.members.map((member) => member.name));
      }
      return names;
    },
    async limited() {
      const waits = [];
      client.on("rate_limited", (seconds) => waits.push(seconds));
      const { channel } = await client.conversations.info({ channel: "C1" });
      return { waits, name: channel.name };
    },
    uploaded: async () => (await client.users.setPhoto({ image: Buffer.alloc(300_000, 7) })).profile,
    unknown: () => client.chat.postMessage({ channel: "C404", text: "?" }),
  },
  (err) => ({ code: err.code, error: err.data?.error }),
);
