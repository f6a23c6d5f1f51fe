#!/usr/bin/env python3
"""One step of RWKV-7 in PyTorch, in bf16 and as a CUDA graph: what rwkvc is compared with. Random weights."""

import json
import sys

import torch
import torch.nn.functional as F

# Layers, width, ranks of decay, learning rate, value gate and gate.
SIZES = {
    "0.1b": (12, 768, (64, 64, 32, 128)),
    "0.4b": (24, 1024, (64, 64, 32, 128)),
    "1.5b": (24, 2048, (96, 96, 64, 256)),
    "2.9b": (32, 2560, (96, 96, 64, 320)),
}
VOCAB, HEAD = 65536, 64


def rand(*shape, scale=0.02):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * scale


class Block:
    def __init__(self, width, ranks):
        self.mix = [rand(width) for _ in range(7)]
        self.receptance, self.key, self.value, self.output = (rand(width, width) for _ in range(4))
        self.decay, self.rate, self.gate_v, self.gate = ((rand(width, rank), rand(rank, width)) for rank in ranks)
        self.bias = [rand(width) for _ in range(3)]
        self.k_k, self.k_a, self.r_k = rand(width), rand(width), rand(width // HEAD, HEAD)
        self.up, self.down = rand(width, 4 * width), rand(4 * width, width)
        self.norms = [(torch.ones_like(self.k_k), torch.zeros_like(self.k_k)) for _ in range(3)]

    def step(self, x, first_v, att_prev, ffn_prev, state):
        """x: [batch, width]; state: [batch, heads, value, key], in f32, changed in place."""
        batch, width = x.shape
        heads = (batch, width // HEAD, HEAD)
        h = F.layer_norm(x, (width,), *self.norms[0])
        delta = att_prev - h
        att_prev.copy_(h)
        xr, xw, xk, xv, xa, xg = (h + delta * m for m in self.mix[:6])
        r, k, v = xr @ self.receptance, xk @ self.key, xv @ self.value
        w = self.bias[0] + torch.tanh(xw @ self.decay[0]) @ self.decay[1]
        w = torch.exp(-0.606531 * torch.sigmoid(w.float()))
        a = torch.sigmoid(self.bias[1] + (xa @ self.rate[0]) @ self.rate[1])
        g = torch.sigmoid(xg @ self.gate[0]) @ self.gate[1]
        if first_v is None:
            first_v = v
        else:
            v = v + (first_v - v) * torch.sigmoid(self.bias[2] + (xv @ self.gate_v[0]) @ self.gate_v[1])
        kk = F.normalize((k * self.k_k).view(heads), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        r_, k_, v_, a_, w_ = (t.view(heads).float() for t in (r, k, v, a, w))
        removed = (state @ -kk.float().unsqueeze(-1)) @ (kk.float() * a_).unsqueeze(-2)
        state.mul_(w_.unsqueeze(-2)).add_(removed).add_(v_.unsqueeze(-1) @ k_.unsqueeze(-2))
        y = (state @ r_.unsqueeze(-1)).reshape(batch, width).to(x.dtype)
        y = F.group_norm(y, width // HEAD, *self.norms[1], eps=64e-5)
        bonus = (r.view(heads) * k.view(heads) * self.r_k).sum(-1, keepdim=True) * v.view(heads)
        x = x + ((y + bonus.reshape(batch, width)) * g) @ self.output
        h = F.layer_norm(x, (width,), *self.norms[2])
        k = h + (ffn_prev - h) * self.mix[6]
        ffn_prev.copy_(h)
        return x + torch.relu(k @ self.up).square() @ self.down, first_v


def milliseconds(size, batch):
    layers, width, ranks = SIZES[size]
    blocks = [Block(width, ranks) for _ in range(layers)]
    embedding, head = rand(VOCAB, width), rand(width, VOCAB)
    norm = (torch.ones(width, device="cuda", dtype=torch.bfloat16), torch.zeros(width, device="cuda", dtype=torch.bfloat16))
    prev = [[torch.zeros(batch, width, device="cuda", dtype=torch.bfloat16) for _ in range(2)] for _ in blocks]
    states = [torch.zeros(batch, width // HEAD, HEAD, HEAD, device="cuda") for _ in blocks]
    tokens = torch.arange(batch, device="cuda")

    def step():
        x, first_v = embedding[tokens], None
        for block, (att, ffn), state in zip(blocks, prev, states):
            x, first_v = block.step(x, first_v, att, ffn, state)
        return F.layer_norm(x, (width,), *norm) @ head

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    samples = []
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(16):
            graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / 16)
    return sorted(samples)[len(samples) // 2]


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in SIZES:
        sys.exit(f"usage: gpu-peer.py {'|'.join(SIZES)}")
    size = sys.argv[1]
    rows = []
    with torch.no_grad():
        for batch in (1, 8, 32, 128):
            ms = milliseconds(size, batch)
            rows.append({"batch": batch, "ms": ms, "tokens_per_s": batch * 1e3 / ms})
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name(), "rows": rows}))


if __name__ == "__main__":
    main()
