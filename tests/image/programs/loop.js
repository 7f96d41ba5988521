// SPDX-License-Identifier: MIT
// loop.js ROUNDS FILE: timers, promises, a pool of threads (pbkdf2, files), compiled functions, garbage.
'use strict';
const crypto = require('crypto');
const fs = require('fs/promises');
const zlib = require('zlib');

const rounds = Number(process.argv[2]), path = process.argv[3];
const digest = crypto.createHash('sha256');

function work(round) {
	const counts = new Map();
	for (let i = 0; i < 20000; i++) {
		const key = 'k' + (i * i + round) % 997;
		counts.set(key, (counts.get(key) || 0) + i);
	}
	return [...counts].sort().map(([key, value]) => key + value).join();
}

async function main() {
	const file = await fs.open(path, 'w+');
	for (let round = 0; round < rounds; round++) {
		const text = work(round);
		const keys = [0, 1, 2, 3].map(k => new Promise((done, fail) =>
			crypto.pbkdf2(text.slice(0, 50), 'salt' + k, 300, 32, 'sha256', (e, key) => e ? fail(e) : done(key))));
		for (const key of await Promise.all(keys))
			digest.update(key);
		const packed = await new Promise((done, fail) => zlib.deflate(text, (e, out) => e ? fail(e) : done(out)));
		if (zlib.inflateSync(packed).toString() !== text)
			throw new Error('another text');
		await file.write(digest.copy().digest('hex') + '\n');
		await new Promise(done => setTimeout(done, 1));
		if (round % 50 === 0)
			console.log(round, digest.copy().digest('hex').slice(0, 16));
	}
	await file.close();
	console.log(digest.digest('hex'));
}

main();
