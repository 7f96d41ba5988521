-- SPDX-License-Identifier: MIT
-- tables.lua ROUNDS: tables, metatables, coroutines, strings, garbage.
local rounds = tonumber(arg[1])
local seed, total = 7, 0
local function number()
	seed = (seed * 1103515245 + 12345) % 2147483648
	return seed
end
local Pair = {}
Pair.__index = Pair
Pair.__add = function(a, b) return setmetatable({ x = (a.x + b.x) % 1000003, y = a.y .. b.y:sub(1, 1) }, Pair) end
local function walk(t)
	for k = 1, #t do coroutine.yield(k, t[k]) end
end
for round = 1, rounds do
	local t, sum = {}, setmetatable({ x = 0, y = "" }, Pair)
	for i = 1, 400 do t[i] = setmetatable({ x = number() % 1009, y = string.format("%x", number()) }, Pair) end
	table.sort(t, function(a, b) if a.x ~= b.x then return a.x < b.x end return a.y < b.y end)
	for _, pair in coroutine.wrap(function() walk(t) end) do sum = sum + pair end
	total = (total * 31 + sum.x + #sum.y:gsub("[a-f]", "")) % 1000003
	if round % 100 == 0 then
		io.write(round, " ", total, " ", sum.y:sub(1, 20), "\n")
		io.flush()
	end
end
print(total)
