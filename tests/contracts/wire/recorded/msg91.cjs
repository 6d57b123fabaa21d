// Records what MSG91's own client for Node sends. A Python project can't keep it as a dependency, so its requests are
// kept instead, in msg91.json beside this file. Anywhere else:
//
//   npm install --ignore-scripts msg91@2.2.8 && NODE_PATH=node_modules node <this file> > <msg91.json beside it>
//
// The client knows no address but MSG91's own. It is told of a proxy on this machine, which keeps the request.

"use strict";

const http = require("node:http");

const AUTH_KEY = "msg91-key";
const TEMPLATE = "60a1b2c3d4e5f60718293a4b";
const RECIPIENT = { otp: "123456", OTP: "123456", var1: "123456", VAR1: "123456" };
const OPTIONS = { senderId: "ACMEIN", shortURL: false };

const requests = [];
const proxy = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const { authkey, "content-type": contentType } = request.headers;
    const body = JSON.parse(Buffer.concat(chunks).toString());
    requests.push({ method: request.method, url: request.url, headers: { authkey, "content-type": contentType }, body });
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ type: "success", message: "3763646c3058373530393938" }));
  });
});

proxy.listen(0, "127.0.0.1", async () => {
  process.env.https_proxy = `http://127.0.0.1:${proxy.address().port}`;
  process.env.no_proxy = "";
  const msg91 = require("msg91").default;
  msg91.initialize({ authKey: AUTH_KEY });
  const sms = msg91.getSMS();
  // To one number, as the client's README does it: the client itself says what the number is called on the wire.
  const answers = [
    await sms.send(TEMPLATE, { mobile: "447700900123", ...RECIPIENT }, OPTIONS),
    await sms.send(TEMPLATE, [{ mobiles: "447700900123", ...RECIPIENT }], OPTIONS),
  ];
  proxy.close();
  const { name, version } = require("msg91/package.json");
  process.stdout.write(`${JSON.stringify({ registry: "npm", package: name, version, requests, answers }, null, 2)}\n`);
});
