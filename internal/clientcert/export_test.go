package clientcert

// XFCCCertificate is what the tests see of the parser.
var XFCCCertificate = xfccCertificate
