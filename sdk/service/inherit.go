package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// The variables in which an agent names the two ends of pipes that it gives to its child, in decimal.
const (
	envIn  = "FLEETSPEAK_COMMS_CHANNEL_INFD"
	envOut = "FLEETSPEAK_COMMS_CHANNEL_OUTFD"
)

// inherit opens the pipes of the agent and forgets where they were named.
func inherit() (in io.ReadCloser, out io.WriteCloser, err error) {
	inNumber, err := variable(envIn)
	if err != nil {
		return nil, nil, err
	}
	outNumber, err := variable(envOut)
	if err != nil {
		return nil, nil, err
	}
	if inNumber == outNumber {
		return nil, nil, fmt.Errorf("%s and %s are both %d", envIn, envOut, inNumber)
	}
	if err := errors.Join(os.Unsetenv(envIn), os.Unsetenv(envOut)); err != nil {
		return nil, nil, err
	}
	inFile, err := adopt(inNumber, "from agent")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", envIn, err)
	}
	outFile, err := adopt(outNumber, "to agent")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", envOut, err), inFile.Close())
	}
	return inFile, outFile, nil
}

func variable(name string) (uintptr, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, fmt.Errorf("%s is not set: an agent has to start this program, as a Daemon service", name)
	}
	number, err := strconv.ParseUint(text, 10, strconv.IntSize-1)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return uintptr(number), nil
}
