// SPDX-License-Identifier: MIT
//
// The same binary trees as trees.c, on one goroutine.
package main

import (
	"fmt"
	"os"
	"strconv"
)

const depthMin = 4

type tree struct {
	left, right *tree
}

func makeTree(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	left := makeTree(depth - 1)
	right := makeTree(depth - 1)
	return &tree{left, right}
}

func (t *tree) count() uint64 {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.count() + t.right.count()
}

func main() {
	depthMax := 20
	if len(os.Args) > 1 {
		depth, err := strconv.Atoi(os.Args[1])
		if err != nil || depth > 40 {
			fmt.Fprintln(os.Stderr, "bench: the depth is no number up to 40")
			os.Exit(1)
		}
		depthMax = depth
	}
	if depthMax < depthMin+2 {
		depthMax = depthMin + 2
	}
	check := makeTree(depthMax + 1).count()
	longLived := makeTree(depthMax)
	for depth := depthMin; depth <= depthMax; depth += 2 {
		iterations := 1 << uint(depthMax-depth+depthMin)
		for i := 0; i < iterations; i++ {
			check += makeTree(depth).count()
		}
	}
	check += longLived.count()
	fmt.Printf("check=%d\n", check)
}
