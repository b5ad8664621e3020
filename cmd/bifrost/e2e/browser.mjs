// A real browser that does what it is told: one command per line of standard input, one answer per line of standard output.
//
// The argument is {"executable", "artifacts", "context"}; context holds playwright's options of a browser context. A command is
// {"id", "do", ...}; its answer is an event "done" or "failed" with the same id. What people see and press is what commands
// name: roles, labels and texts, never ids.
import { createInterface } from "node:readline";
import { join } from "node:path";
import { chromium } from "playwright-core";

const { executable, artifacts, context: options } = JSON.parse(process.argv[2]);
const tell = (event, members = {}) => process.stdout.write(JSON.stringify({ event, ...members }) + "\n");

const browser = await chromium.launch({
  executablePath: executable,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
const context = await browser.newContext(options);
context.setDefaultTimeout(15_000);
const page = await context.newPage();

let problems = []; // what the console complains of: violations of the CSP are among it
page.on("console", (message) => {
  if (message.type() === "error" || message.type() === "warning") {
    problems.push(`${message.type()}: ${message.text()}`);
  }
});
page.on("pageerror", (err) => problems.push(`exception: ${err.message}`));
let status = 0; // of the page that is shown
page.on("response", (response) => {
  if (response.request().isNavigationRequest() && response.frame() === page.mainFrame()) {
    status = response.status();
  }
});

const row = (org) => page.getByRole("row").filter({ has: page.getByRole("rowheader").getByText(org, { exact: true }) });

const commands = {
  open: async ({ url }) => void (await page.goto(url)),
  press: ({ name }) => page.getByRole("button", { name, exact: true }).or(page.getByRole("link", { name, exact: true })).click(),
  fill: ({ label, value }) => page.getByLabel(label, { exact: true }).fill(value),
  sees: ({ text }) => page.getByText(text).first().waitFor(),
  seesInRow: ({ org, text }) => row(org).getByText(text).first().waitFor(),
  shot: async ({ name }) => void (await page.screenshot({ path: join(artifacts, `${name}.png`), fullPage: true })),
  clipboard: async () => ({ text: await page.evaluate(() => navigator.clipboard.readText()) }),
  has: async ({ button }) => ({ count: await page.getByRole("button", { name: button, exact: true }).count() }),
  state: async () => {
    const told = problems;
    problems = [];
    const overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    return { url: page.url(), status, content: await page.content(), overflow, problems: told };
  },
};

// Commands end with standard input, and so does the browser: it never outlives its test.
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const result = await commands[command.do](command);
    tell("done", { id: command.id, ...result });
  } catch (err) {
    tell("failed", { id: command.id, message: err.message });
  }
}
await browser.close();
