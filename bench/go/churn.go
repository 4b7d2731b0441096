// SPDX-License-Identifier: MIT
//
// The same churn as churn.c: [slots] [steps per goroutine] [goroutines].
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

type leaf struct {
	value [4]uint64
}

type node struct {
	leaf    *leaf
	payload [6]uint64
}

func argument(index int, fallback uint64) uint64 {
	if index >= len(os.Args) {
		return fallback
	}
	value, err := strconv.ParseUint(os.Args[index], 10, 32)
	if err != nil || value == 0 {
		fmt.Fprintln(os.Stderr, "bench: an argument is no number between 1 and 2^32")
		os.Exit(1)
	}
	return value
}

func churn(table []*node, steps, random uint64) time.Duration {
	var longest, before time.Duration
	slots := uint64(len(table))
	started := time.Now()
	for step := uint64(0); step < steps; step++ {
		random ^= random << 13
		random ^= random >> 7
		random ^= random << 17
		n := &node{leaf: &leaf{}}
		n.leaf.value[0] = step
		n.payload[0] = step
		table[((random>>32)*slots)>>32] = n
		now := time.Since(started)
		if now-before > longest {
			longest = now - before
		}
		before = now
	}
	return longest
}

func main() {
	slots := argument(1, 4<<20)
	steps := argument(2, 30000000)
	workers := argument(3, 1)

	tables := make([][]*node, workers)
	longest := make([]time.Duration, workers)
	for i := range tables {
		tables[i] = make([]*node, slots)
	}
	var group sync.WaitGroup
	started := time.Now()
	for i := range tables {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			longest[i] = churn(tables[i], steps, 0x9e3779b97f4a7c15*uint64(i+1))
		}(i)
	}
	group.Wait()
	seconds := time.Since(started).Seconds()

	worst := longest[0]
	for _, one := range longest {
		if one > worst {
			worst = one
		}
	}
	stats := debug.GCStats{PauseQuantiles: make([]time.Duration, 101)}
	debug.ReadGCStats(&stats)
	milliseconds := func(d time.Duration) float64 { return float64(d) / 1e6 }
	fmt.Printf("steps_per_s=%.0f longest_ms=%.3f\n", float64(steps*workers)/seconds,
		milliseconds(worst))
	fmt.Printf("pause_p50_ms=%.3f pause_p99_ms=%.3f pause_max_ms=%.3f\n",
		milliseconds(stats.PauseQuantiles[50]), milliseconds(stats.PauseQuantiles[99]),
		milliseconds(stats.PauseQuantiles[100]))
	runtime.KeepAlive(tables)
}
