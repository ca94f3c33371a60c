package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"

	"google.golang.org/grpc"

	fspb "github.com/farspeak/farspeak/proto/fleetspeak"
	grpcservicepb "github.com/farspeak/farspeak/proto/fleetspeak/grpcservice"
)

// Floors are what the machine can do without a fabric: the smallest servers that do one part of its work, each in a process
// of its own. floorServer runs in that process, with the certificate and key on standard input.
//
//	hold    a mutual-TLS connection with one goroutine blocked in a read
//	bare    a mutual-TLS connection without any
//	echo    answers each request over mutual TLS with four bytes
//	grpc    a gRPC server whose calls do nothing
const (
	floorHold = "hold"
	floorBare = "bare"
	floorEcho = "echo"
	floorGRPC = "grpc"
)

// echoRequest is the size of a request to the echo server in bytes: a record of ten messages of 200 bytes each, as long as
// the real one.
const echoRequest = 10 * 330

// floorServer serves until it is told to end. SIGUSR1 makes it give memory back.
func floorServer(ctx context.Context, kind, address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	trim := make(chan os.Signal, 1)
	signal.Notify(trim, syscall.SIGUSR1)
	go func() { // ends with the process
		for range trim {
			debug.FreeOSMemory()
		}
	}()
	if kind == floorGRPC {
		server := grpc.NewServer()
		grpcservicepb.RegisterProcessorServer(server, idle{})
		return server.Serve(listener)
	}
	certificate, key, err := readPair(os.Stdin)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"}}
	return serveFloor(ctx, kind, listener, config)
}

// readPair reads two blocks of PEM, each with its length in front.
func readPair(in io.Reader) (certificate, key []byte, err error) {
	lines := bufio.NewReader(in)
	var sizes [2]int
	if _, err := fmt.Fscanln(lines, &sizes[0], &sizes[1]); err != nil {
		return nil, nil, err
	}
	certificate, key = make([]byte, sizes[0]), make([]byte, sizes[1])
	if _, err := io.ReadFull(lines, certificate); err != nil {
		return nil, nil, err
	}
	_, err = io.ReadFull(lines, key)
	return certificate, key, err
}

func serveFloor(ctx context.Context, kind string, listener net.Listener, config *tls.Config) error {
	var mu sync.Mutex
	var held []net.Conn
	for {
		plain, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		go func() { // ends with the connection, or the process
			conn := tls.Server(plain, config)
			if conn.Handshake() != nil {
				conn.Close()
				return
			}
			if _, err := conn.Write([]byte{1}); err != nil { // after which the client has its ticket
				return
			}
			switch kind {
			case floorBare:
				mu.Lock()
				held = append(held, conn)
				mu.Unlock()
			case floorHold:
				go func() { // on a fresh, small stack
					var b [1]byte
					_, _ = conn.Read(b[:])
					conn.Close()
				}()
			case floorEcho:
				echo(conn)
			}
		}()
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	request := make([]byte, echoRequest)
	for {
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		if _, err := conn.Write(request[:4]); err != nil {
			return
		}
	}
}

// idle is a backend that does nothing.
type idle struct {
	grpcservicepb.UnimplementedProcessorServer
}

func (idle) Process(context.Context, *fspb.Message) (*fspb.EmptyMessage, error) {
	return &fspb.EmptyMessage{}, nil
}
