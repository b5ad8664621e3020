// What the programs of the SDK tests share. Each gets {"base_url", "key"} as its argument and goes through its steps, telling what
// came of each as one line of JSON: {"event": NAME, "got": WHAT} or {"event": NAME, "failed": WHAT}, and {"event": "end"} at last.
export const { base_url: baseUrl, key } = JSON.parse(process.argv[2]);

console.log = console.info = console.error; // standard output is for the events

const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

// run takes the steps one after another; describe says what to tell of an error.
export async function run(steps, describe) {
  for (const [event, step] of Object.entries(steps)) {
    try {
      tell({ event, got: await step() });
    } catch (err) {
      console.error(event, err.message);
      tell({ event, failed: describe(err) });
    }
  }
  tell({ event: "end" });
}
