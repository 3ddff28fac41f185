// The taxi functions in Go, and texts in the order a person expects. A core module: the arguments arrive as one JSON
// array, the result leaves as JSON (see wit/core-abi.md).
package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

type row struct {
	VendorID   int64   `json:"vendorid"`
	Weekday    string  `json:"weekday"`
	PickupHour int64   `json:"pickuphour"`
	Passenger  int64   `json:"passenger"`
	Distance   float64 `json:"distance"`
}

//go:wasmexport forebay_json_create_array
func createArray(pointer, length uint32) uint64 {
	return answer(pointer, length, func(features [5]string) ([5]string, error) { return features, nil })
}

//go:wasmexport forebay_json_create_row
func createRow(pointer, length uint32) uint64 {
	return answer(pointer, length, func(given [5]json.RawMessage) (r row, err error) {
		for i, field := range []any{&r.VendorID, &r.Weekday, &r.PickupHour, &r.Passenger, &r.Distance} {
			if err = json.Unmarshal(given[i], field); err != nil {
				return r, fmt.Errorf("argument %d: %w", i+1, err)
			}
		}
		return r, nil
	})
}

// sortNames puts names in order, runs of digits by their number: pump-2 before pump-10.
//
//go:wasmexport forebay_json_sort_names
func sortNames(pointer, length uint32) uint64 {
	return answer(pointer, length, func(given [1][]string) ([]string, error) {
		slices.SortStableFunc(given[0], compareNames)
		return given[0], nil
	})
}

func compareNames(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a = run(a)
		y, b = run(b)
		order := strings.Compare(x, y)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			// of two numbers the longer is the larger
			if order = len(x) - len(y); order == 0 {
				order = strings.Compare(x, y)
			}
		}
		if order != 0 {
			return order
		}
	}
	return len(a) - len(b)
}

// run cuts off the digits, or what is none, at the start of a text that is not empty.
func run(text string) (string, string) {
	digits := isDigit(text[0])
	end := strings.IndexFunc(text, func(r rune) bool { return (r >= '0' && r <= '9') != digits })
	if end < 0 {
		end = len(text)
	}
	return text[:end], text[end:]
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// --- the convention

// Kept here so that the collector leaves them while forebay writes or reads.
var arguments, result []byte

//go:wasmexport forebay_alloc
func alloc(size uint32) uint32 {
	arguments = slices.Grow(arguments[:0], max(int(size), 1))
	return address(arguments)
}

const isError = 1 << 31

// answer reads the arguments as T and gives what f makes of them, or its error.
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
