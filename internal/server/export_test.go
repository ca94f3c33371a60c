package server

// For tests in package server_test.
var CheckMemory = (*Server).checkMemory
