// SPDX-License-Identifier: MIT
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Heap ROUNDS: garbage, compiled loops, a pool of threads, exceptions. */
public class Heap {
	static long work(int round, int part) throws Exception {
		Map<String, Integer> map = new HashMap<>();
		for (int i = 0; i < 3000; i++)
			map.merge("key" + (i * (part + 7L) + round) % 1009, i, Integer::sum);
		long sum = 0;
		for (Map.Entry<String, Integer> e : map.entrySet())
			sum += (long) e.getKey().hashCode() * e.getValue();
		try {
			if (round % 10 == part)
				throw new IllegalStateException(Long.toString(sum));
		} catch (IllegalStateException e) {
			sum += e.getMessage().length();
		}
		return sum;
	}

	public static void main(String[] words) throws Exception {
		ExecutorService pool = Executors.newFixedThreadPool(4);
		int rounds = Integer.parseInt(words[0]);
		long total = 0;
		for (int round = 0; round < rounds; round++) {
			List<Future<Long>> parts = new ArrayList<>();
			for (int part = 0; part < 8; part++) {
				final int r = round, p = part;
				parts.add(pool.submit(() -> work(r, p)));
			}
			for (Future<Long> part : parts)
				total = total * 31 + part.get();
			if (round % 200 == 0)
				System.out.println(round + " " + total);
		}
		pool.shutdown();
		System.out.println(total);
	}
}
