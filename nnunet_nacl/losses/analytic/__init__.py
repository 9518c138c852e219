"""The losses with their gradients computed beside their values, for the CPU.

Automatic differentiation keeps log-probabilities, one-hot labels, neighbourhood shares and distances, each as large as
the logits. The gradients need none of them: each is the softmax less something that is cheap to make class by class,

    d/dl_k [-log p_y] = p_k - [k = y]

so the softmax goes straight into the gradient's buffer, which is then finished in place. Labels are compared, and
neighbours counted, in single bytes. The plain formulas in the file of each loss say what is computed;
tests hold both against each other.
"""
