// Pages through repositories and follows what GitHub answers with octokit, through whatever base URL it is given.
//
// The base URL and the key are all that differs from a program that uses GitHub itself.
import { Octokit } from "@octokit/rest";
import { baseUrl, key, run } from "./sdksteps.mjs";

const octokit = new Octokit({ baseUrl, auth: key });
const rocket = { owner: "acme", repo: "rocket" };

await run(
  {
    all: async () => (await octokit.paginate(octokit.rest.repos.listForOrg, { org: "acme", per_page: 2 })).map((repo) => repo.name),
    async first() {
      for await (const page of octokit.paginate.iterator(octokit.rest.repos.listForOrg, { org: "acme", per_page: 2 })) {
        return page.data.map((repo) => repo.name);
      }
    },
    async followed() {
      const { data: repo } = await octokit.rest.repos.get(rocket);
      const { data: commit } = await octokit.request(repo.commits_url, { sha: "main" });
      return { repo, commit };
    },
    async created() {
      const { status, data } = await octokit.rest.issues.create({ ...rocket, title: "Engine “3” → off" });
      return { status, title: data.title };
    },
    unchanged: () => octokit.rest.repos.get({ ...rocket, headers: { "if-none-match": '"rocket-1"' } }),
    missing: () => octokit.rest.repos.get({ owner: "acme", repo: "nothing" }),
  },
  (err) => ({ status: err.status, request: err.response?.headers["x-github-request-id"] }),
);
