// Sends what stdin asks for, one after the other, and tells in JSON what became of each.
// In: [{transport: {...}, messages: [{...}, ...]}, ...].  Out: [[result or {error}, ...], ...].
"use strict";
const nodemailer = require("nodemailer");

async function send(task) {
  const transport = nodemailer.createTransport({ tls: { rejectUnauthorized: false }, name: "client.example.net", ...task.transport });
  const results = await Promise.all(task.messages.map(async (message) => {
    try {
      const told = await transport.sendMail(message);
      return { accepted: told.accepted, rejected: told.rejected, response: told.response };
    } catch (error) {
      return { error: error.code, code: error.responseCode, response: error.response };
    }
  }));
  transport.close();
  return results;
}

(async () => {
  const tasks = JSON.parse(require("fs").readFileSync(0, "utf-8"));
  const results = [];
  for (const task of tasks) results.push(await send(task));
  process.stdout.write(JSON.stringify(results));
})();
