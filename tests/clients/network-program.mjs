#!/usr/bin/env node
// The network of network.mjs for clients that are not written in JavaScript.
//
//   network-program.mjs http://127.0.0.1:8080/mcp
//
// Prints the origin to connect to. Each line that it reads is part, hold or release, and is answered with one JSON
// line. It ends with its input.

import { createInterface } from 'node:readline';
import { Network } from './network.mjs';

const COMMANDS = ['part', 'hold', 'release'];

const network = await Network.before(process.argv[2]);
console.log(network.origin);
for await (const command of createInterface({ input: process.stdin })) {
  if (!COMMANDS.includes(command)) throw new Error(`no such command: ${command}`);
  console.log(JSON.stringify(await network[command]()));
}
process.exit(0);
