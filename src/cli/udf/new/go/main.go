// udf.{{camel}}(value, low, high): where a value lies between two bounds, 0 to 1. A core module of functions of JSON: the
// arguments arrive as one JSON array, the result leaves as JSON (see wit/core-abi.md of forebay).
package main

import (
	"encoding/json"
	"errors"
	"slices"
	"unsafe"
)

//go:wasmexport forebay_json_{{snake}}
func {{camel}}(pointer, length uint32) uint64 {
	// NULL arrives as nil
	return answer(pointer, length, func(given [3]*float64) (*float64, error) {
		value, low, high := given[0], given[1], given[2]
		if value == nil || low == nil || high == nil {
			return nil, nil
		}
		if !(*low < *high) {
			return nil, errors.New("low must be below high")
		}
		fraction := min(max((*value-*low)/(*high-*low), 0), 1)
		return &fraction, nil
	})
}

// --- the convention

// Kept here so that the collector leaves them while forebay writes or reads.
var arguments, result []byte

//go:wasmexport forebay_alloc
func alloc(size uint32) uint32 {
	arguments = slices.Grow(arguments[:0], max(int(size), 1))
	return address(arguments)
}

const isError = 1 << 31

// answer reads the arguments as T and gives what f makes of them, or its error, which is the row's.
func answer[T, R any](pointer, length uint32, f func(T) (R, error)) uint64 {
	var given T
	err := json.Unmarshal(arguments[:length], &given)
	var value R
	if err == nil {
		value, err = f(given)
	}
	if err == nil {
		result, err = json.Marshal(value)
	}
	if err != nil {
		result = []byte(err.Error())
		return uint64(address(result))<<32 | isError | uint64(len(result))
	}
	return uint64(address(result))<<32 | uint64(len(result))
}

func address(bytes []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))) }

func main() {}
